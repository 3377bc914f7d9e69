package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// A blob reads a blob of a repository range by range. It knows where the
// registry sent the last reader, so that the next one asks there at once.
type blob struct {
	repo   *Repository
	digest digest.Digest
	size   int64

	// turn is that of finding out where the blob is; who waits for it uses
	// what the one before found.
	turn turn

	mu    sync.Mutex
	place *location // nil: not known
	spool *spool    // nil: the blob was not sent whole
}

var _ remote.Blob = (*blob)(nil)

func newBlob(r *Repository, desc ocispec.Descriptor) *blob {
	return &blob{repo: r, digest: desc.Digest, size: desc.Size, turn: newTurn()}
}

func (b *blob) Digest() digest.Digest { return b.digest }

func (b *blob) Size() int64 { return b.size }

// ReadAt reads from the registry, or from the spool if the registry sent the
// blob whole. What it returns is not verified.
func (b *blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("%s: read at negative offset %d", b.name(), off)
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case len(p) == 0:
		return 0, nil
	case off >= b.size:
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), b.size-off)]
	n, err := b.readFull(ctx, want, off)
	if err != nil {
		return n, wrap(b.name(), err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b *blob) name() string {
	return fmt.Sprintf("blob %s of %s", b.digest, b.repo.Repository())
}

// readFull fills p, with as many requests as that takes.
func (b *blob) readFull(ctx context.Context, p []byte, off int64) (n int, err error) {
	patience := newPatience(b.repo.client.opts, true)
	err = patience.retry(ctx, b.name(), func(ctx context.Context) error {
		for n < len(p) {
			m, err := b.read(ctx, patience, p[n:], off+int64(n))
			n += m
			patience.progress(m)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// read makes one request for p and reads what the answer has of it, which is
// something unless it returns an error.
func (b *blob) read(ctx context.Context, patience *patience, p []byte, off int64) (int, error) {
	a, err := b.open(ctx, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	if a.spool != nil {
		return a.spool.read(ctx, patience, p, off)
	}
	n, err := io.ReadFull(a.body, p[:a.n])
	if err != nil {
		// The connection is no good any more, perhaps the server neither.
		a.body.Close()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = &fault{verdict: busy, class: remote.ErrUnavailable, text: fmt.Sprintf("the answer ends after %d of %d bytes", n, a.n)}
		}
		return n, err
	}
	drain(a.body)
	return n, nil
}

// An answer is what a request for a range brought: a body whose first n
// bytes are the range's, or a spool that has them or will.
type answer struct {
	body  io.ReadCloser
	n     int64
	spool *spool
}

// open asks for n bytes from off where the blob is known to be, and else at
// the registry.
func (b *blob) open(ctx context.Context, off, n int64) (answer, error) {
	for again := false; ; again = true {
		place, s := b.known()
		if s != nil && s.serves(off+n) {
			return answer{spool: s}, nil
		}
		if place != nil {
			a, err := b.ask(ctx, place, off, n)
			if err == nil || !b.forget(place, err) || again {
				return a, err
			}
			continue
		}
		if err := b.turn.take(ctx); err != nil {
			return answer{}, err
		}
		if place, _ = b.known(); place != nil {
			b.turn.pass()
			continue
		}
		defer b.turn.pass()
		home, err := b.repo.location(ctx, "blobs/"+b.digest.String())
		if err != nil {
			return answer{}, err
		}
		return b.ask(ctx, home, off, n)
	}
}

func (b *blob) known() (*location, *spool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.place != nil && !b.place.expires.IsZero() && time.Now().After(b.place.expires) {
		b.place = nil
	}
	return b.place, b.spool
}

// forget drops a place that is not the registry's own after it failed: a
// signed URL ends when it likes. It tells whether to ask the registry at once.
func (b *blob) forget(place *location, err error) bool {
	f := classify(err)
	if place.home || f.verdict == busy && f.status != 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.place == place {
		b.place = nil
	}
	return denied(f.status)
}

func denied(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// ask sends one request for n bytes from off to a place, and notes where the
// answer came from.
func (b *blob) ask(ctx context.Context, from *location, off, n int64) (answer, error) {
	resp, at, err := b.repo.ask(ctx, http.MethodGet, from, http.Header{
		"Range":           {fmt.Sprintf("bytes=%d-%d", off, off+n-1)},
		"Accept-Encoding": {"identity"},
	})
	if err != nil {
		return answer{}, err
	}
	a, err := b.accept(resp, off, n)
	if err != nil {
		// Not drained: after a wrong answer the next goes by a new connection.
		resp.Body.Close()
		if f := classify(err); !at.home && denied(f.status) {
			// Storage knows only the signature. What the registry thinks of
			// the reader is for the registry to say.
			f.verdict = odd
			if f.class == remote.ErrUnauthorized {
				f.class = remote.ErrUnavailable
			}
			return answer{}, f
		}
		return answer{}, err
	}
	if !at.expires.IsZero() && !at.expires.After(time.Now()) {
		at = &location{url: from.url, home: from.home, expires: from.expires}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.place = at
	return a, nil
}

// accept checks that an answer is the range asked for.
func (b *blob) accept(resp *http.Response, off, n int64) (answer, error) {
	header := resp.Header
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return answer{}, responseFault(resp)
	}
	if e := header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return answer{}, oddf("the answer is encoded with %s", scrub(e))
	}
	if resp.StatusCode == http.StatusPartialContent {
		got, err := checkRange(header, resp.ContentLength, off, n, b.size)
		return answer{body: resp.Body, n: got}, err
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.size {
		return answer{}, oddf("the whole blob is sent, %d bytes instead of %d", resp.ContentLength, b.size)
	}
	if mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type")); mediaType == "text/html" {
		return answer{}, oddf("the answer is a web page")
	}
	if n == b.size {
		return answer{body: resp.Body, n: n}, nil
	}
	s, err := b.spoolInto(resp.Body.(*liveBody))
	return answer{spool: s}, err
}

// RFC 9110, 14.4. The total may be left unknown.
var contentRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// checkRange returns how many bytes of a 206's body to take for n bytes from
// off of a blob of size bytes. They can be fewer: then the rest is asked for.
func checkRange(header http.Header, length, off, n, size int64) (int64, error) {
	value := header.Get("Content-Range")
	m := contentRange.FindStringSubmatch(value)
	if m == nil {
		return 0, oddf("bytes %d to %d are asked for, and the answer says %q", off, off+n-1, scrub(value))
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
