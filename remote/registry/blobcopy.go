package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// A blobCopy reads a blob range by range at one endpoint. It knows where the
// endpoint sent the last reader, so that the next one asks there at once.
type blobCopy struct {
	at     *endpoint
	name   string
	digest digest.Digest
	size   int64
	// saySize is told what size the endpoint says the blob has, if that is another.
	saySize func(int64)

	// finding is held while a reader finds out where the blob is; the readers
	// that waited use what it found.
	finding ctxMutex
	finder  atomic.Pointer[attempt] // of the reader that held finding last

	mu        sync.Mutex
	place     *location   // nil: not known
	leftovers []*leftover // by age
	wholes    int         // how often the blob was sent whole instead of a range
	streams   int         // readers of all of the blob
	refused   time.Time   // all of the blob was refused then, as a range was
}

// refusedRest is how long all of a blob is not asked for after it was refused, too:
// many readers meet the same.
const refusedRest = 10 * time.Second

// read makes one request for p and reads what the answer has of it, which is
// something unless it returns an error.
func (b *blobCopy) read(ctx context.Context, p []byte, off int64, how reading) (int, error) {
	a, err := b.open(ctx, off, int64(len(p)), how)
	if err != nil {
		return 0, err
	}
	reader := attemptOf(ctx).budget
	if err := b.skip(a, reader.alive); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(&counted{how.body(a.body), reader.progress}, p[:a.n])
	if err != nil {
		// The connection is no good any more, perhaps the server neither.
		a.body.Close()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			f := &fault{verdict: busy, class: remote.ErrUnavailable, text: fmt.Sprintf("the answer ends after %d of %d bytes%s", n, a.n, a.encoded)}
			if a.encoded != "" {
				f.verdict = odd
			}
			err = f
		}
		return n, b.at.blame(err, a.from, "")
	}
	if end := off + a.n; a.whole != nil && end < b.size {
		b.putAside(a.whole, end, how.fresh)
		return n, nil
	}
	drain(a.body)
	return n, nil
}

// A counted reader says of each read how much it brought.
type counted struct {
	io.Reader
	count func(n int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.count(n)
	return n, err
}

// An answer is the body that a request for a range brought: it has the first n
// bytes of the range behind skip others.
type answer struct {
	body io.ReadCloser
	at   int64 // of the body in the blob
	skip int64
	n    int64
	// whole is body if that goes on to the end of the blob.
	whole   *liveBody
	from    *location // nil: not known
	encoded string    // what is to be said of its Content-Encoding
}

// errWhole: all of the blob is sent, and the reader is not to read that.
var errWhole = &fault{class: remote.ErrWhole, text: "ranges of it are not served"}

// open asks for n bytes from off where the blob is known to be, and else at
// the registry.
func (b *blobCopy) open(ctx context.Context, off, n int64, how reading) (answer, error) {
	b.mu.Lock()
	if how.fresh {
		b.place = nil
	}
	wholes := b.wholes
	b.mu.Unlock()
	for again := false; ; again = true {
		if how.ranged {
			if b.isWhole(wholes) {
				return answer{}, errWhole
			}
		} else if l := b.takeLeftover(ctx, off, how.fresh); l != nil {
			return answer{body: l.body, at: l.off, skip: off - l.off, n: n, whole: l.body}, nil
		}
		if place := b.known(); place != nil {
			a, err := b.ask(ctx, place, off, n, how, false)
			if err != nil && place.home {
				return b.orWhole(ctx, off, n, how, err)
			}
			if err == nil || !b.forget(place, err) || again {
				return a, err
			}
			continue
		}
		if err := b.finding.lock(ctx); err != nil {
			if a := b.finder.Load(); a != nil {
				attemptOf(ctx).host.Store(a.host.Load()) // the reader waited for that one
			}
			return answer{}, err
		}
		b.finder.Store(attemptOf(ctx))
		if b.known() != nil {
			b.finding.unlock()
			continue
		}
		defer b.finding.unlock()
		home, err := b.at.location(ctx, "blobs/"+b.digest.String())
		if err != nil {
			return answer{}, err
		}
		a, err := b.ask(ctx, home, off, n, how, false)
		if err != nil {
			return b.orWhole(ctx, off, n, how, err)
		}
		return a, nil
	}
}

// orWhole asks for all of the blob if err may come of a range having been asked
// for, and returns err otherwise. That is done once for a reader: what is
// refused both ways is not to be had.
func (b *blobCopy) orWhole(ctx context.Context, off, n int64, how reading, err error) (answer, error) {
	f := classify(err)
	budget := attemptOf(ctx).budget
	if !f.ranged || budget == nil || budget.whole || !b.mayGoWhole(f, budget) {
		return answer{}, err
	}
	b.mu.Lock()
	rests := time.Since(b.refused) < refusedRest
	b.mu.Unlock()
	if rests {
		return answer{}, err
	}
	home, err := b.at.location(ctx, "blobs/"+b.digest.String())
	if err != nil {
		return answer{}, err
	}
	a, err := b.ask(ctx, home, off, n, how, true)
	if err != nil && err != errWhole {
		f := classify(err)
		if budget.whole = f.status != 0; f.status != 0 && f.verdict != busy {
			b.mu.Lock()
			b.refused = time.Now()
			b.mu.Unlock()
		}
		return answer{}, err
	}
	b.at.client.manners.noteRangeless(f.refuser, b.at.client.opts.RangeRest)
	return a, err
}

// mayGoWhole tells whether a fault is worth to get all of a blob for. Of a
// server that has served ranges it may be a hiccup.
func (b *blobCopy) mayGoWhole(f *fault, budget *retryBudget) bool {
	served := b.at.client.manners.ranged(f.refuser)
	switch {
	case f.verdict == busy:
		return !served && budget.lastBusy()
	case f.verdict == final:
		return true
	case f.status != 0 && !served:
		return true
	}
	return budget.parent == nil && budget.lastOdd()
}

func (b *blobCopy) known() *location {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.place != nil && !b.place.expires.IsZero() && time.Now().After(b.place.expires) {
		b.place = nil
	}
	return b.place
}

// forget drops a place that is not the registry's own after it failed: a
// signed URL ends when it likes. It tells whether to ask the registry at once.
func (b *blobCopy) forget(place *location, err error) bool {
	f := classify(err)
	if place.home || f.verdict == busy && f.status != 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.place == place {
		b.place = nil
	}
	return denied(f.status) || f.ranged && !f.broke
}

func denied(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// refusesRange tells whether a status, at the registry itself or at its storage,
// may be what a range is refused with. What it is to refuse a login is not.
func refusesRange(status int, home bool) bool {
	switch status {
	case http.StatusUnauthorized:
		return !home
	case http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return status >= 400
}

// ask sends one request for n bytes from off, or for all of the blob, to a
// place, and notes where the answer came from.
func (b *blobCopy) ask(ctx context.Context, from *location, off, n int64, how reading, whole bool) (answer, error) {
	header := http.Header{"Accept-Encoding": {"identity"}}
	if !whole {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	if how.fresh {
		header.Set("Cache-Control", "no-cache")
	}
	resp, at, err := b.at.ask(ctx, get(header), from)
	if err != nil {
		if f := classify(err); (f.broke || f.led && f.verdict == odd) && !whole && at != nil {
			breaks := *f
			breaks.ranged, breaks.refuser = true, at.url.Host
			err = &breaks
		}
		return answer{}, err
	}
	ranged := resp.Request.Header.Get("Range") != ""
	a, err := b.accept(resp, at, off, n, how)
	if err != nil && err != errWhole {
		// Not drained: after a wrong answer the next goes by a new connection.
		resp.Body.Close()
		f := *classify(err).by(b.at.speaker(at)).ofStorage(at)
		f.refuser = at.url.Host
		f.ranged = ranged && (f.ranged || f.verdict == odd && f.status < 400 || refusesRange(f.status, at.home))
		return answer{}, &f
	}
	if resp.StatusCode == http.StatusPartialContent {
		b.at.client.manners.noteRanged(at.url.Host)
	}
	if a.from = at; !at.expires.IsZero() && !at.expires.After(time.Now()) {
		at = from
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.place = at
	return a, err
}

// accept checks that an answer is the range asked for.
func (b *blobCopy) accept(resp *http.Response, at *location, off, n int64, how reading) (answer, error) {
	header := resp.Header
	b.noteSize(resp)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return answer{}, b.at.refusal(resp, at)
	}
	label := encoded(header)
	if label != "" && how.fresh { // what came before was wrong
		return answer{}, oddf("what came is not what it should be%s", label)
	}
	mediaType, params, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if resp.StatusCode == http.StatusPartialContent {
		var a answer
		var err error
		if mediaType == "multipart/byteranges" {
			a, err = b.acceptPart(resp, params["boundary"], off, n)
		} else {
			a.body = resp.Body
			a.n, err = checkRange(header, resp.ContentLength, off, n, b.size)
		}
		if err != nil {
			f := *classify(err)
			f.ranged = true
			f.text += label
			return answer{}, &f
		}
		a.encoded = label
		return a, nil
	}
	body := resp.Body.(*liveBody)
	if mediaType == "text/html" {
		// Some servers call everything so.
		if page := body.peek(); isPage(page) {
			return answer{}, oddf("the answer is a web page%s", pageTitle(resp, page))
		}
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.size {
		return answer{}, oddf("the whole blob is sent, %d bytes instead of %d%s", resp.ContentLength, b.size, label)
	}
	if resp.ContentLength < 0 && mediaType == "multipart/byteranges" {
		return answer{}, oddf("the answer has parts, and nothing was asked for in parts")
	}
	if n == b.size {
		return answer{body: body, n: n, whole: body, encoded: label}, nil
	}
	b.noteWhole(at)
	if how.ranged {
		b.putAside(body, 0, how.fresh)
		return answer{}, errWhole
	}
	return answer{body: body, skip: off, n: n, whole: body, encoded: label}, nil
}

// acceptPart accepts the first part of a multipart answer if it is the range
// asked for: a server may send one range so, though it should not. RFC 9110,
// 15.3.7.2.
func (b *blobCopy) acceptPart(resp *http.Response, boundary string, off, n int64) (answer, error) {
	if boundary == "" {
		return answer{}, oddf("the answer has parts, and does not say how they are told apart")
	}
	// Before the first part there may be anything, without an end.
	body := &io.LimitedReader{R: resp.Body, N: maxPreamble}
	part, err := multipart.NewReader(body, boundary).NextRawPart()
	if err != nil {
		if resp.Body.(*liveBody).cause() != nil {
			return answer{}, err
		}
		return answer{}, oddf("the answer should have parts: %s", scrub.Text(err.Error()))
	}
	body.N = math.MaxInt64
	got, err := checkRange(http.Header(part.Header), -1, off, n, b.size)
	return answer{body: struct {
		io.Reader
		io.Closer
	}{part, resp.Body}, n: got}, err
}

// maxPreamble is how many bytes may stand before the first part's content.
const maxPreamble = 64 << 10

// RFC 9110, 14.4. The total may be left unknown.
var contentRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// contentTotal is the end of a Content-Range, also of one that has no range.
var contentTotal = regexp.MustCompile(`^bytes .*/(\d{1,18})$`)

// checkRange returns how many bytes of a 206's body to take for n bytes from
// off of a blob of size bytes. They can be fewer: then the rest is asked for.
func checkRange(header http.Header, length, off, n, size int64) (int64, error) {
	value := header.Get("Content-Range")
	m := contentRange.FindStringSubmatch(value)
	if m == nil {
		return 0, oddf("bytes %d to %d are asked for, and the answer says %q", off, off+n-1, scrub.Text(value))
	}
	// Eighteen digits fit.
	first, _ := strconv.ParseInt(m[1], 10, 64)
	last, _ := strconv.ParseInt(m[2], 10, 64)
	total := size
	if m[3] != "*" {
		total, _ = strconv.ParseInt(m[3], 10, 64)
	}
	if total != size {
		return 0, oddf("the blob has %d bytes instead of %d", total, size)
	}
	if first != off || last < first || last >= size || length >= 0 && length != last-first+1 {
		return 0, oddf("bytes %d to %d are asked for, and the answer has bytes %d to %d in a body of %d", off, off+n-1, first, last, length)
	}
	return min(n, last-first+1), nil
}
