package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// Registries may send a blob whole when a range of it was asked for, as
// pull-through caches do with blobs that they do not have yet. What is left of
// such an answer is put aside for a moment, for a read further on.

const (
	// leftoverTime is how long an answer is put aside. It keeps a slot of its
	// host's busy, unless others wait for one (slotPatience).
	leftoverTime = 2 * time.Second
	// maxLeftovers is how many answers are put aside for a blob: as many as a
	// remote.NewStream has requests.
	maxLeftovers = 4
	// wholeBuffer is how many bytes of a whole blob are handed on at a time.
	wholeBuffer = 64 << 10
)

// A leftover is the rest of an answer that has all of a blob.
type leftover struct {
	of    *blobCopy
	body  *liveBody
	off   int64 // of the rest in the blob
	fresh bool  // it was asked for without what is known or kept on the way
	since time.Time
	timer *time.Timer
}

// putAside keeps the rest of a whole blob, from off on, for the next reader. It
// takes body over.
func (b *blobCopy) putAside(body *liveBody, off int64, fresh bool) {
	if !body.unlink() {
		body.Close() // its reader has gone, and has ended it
		return
	}
	l := &leftover{of: b, body: body, off: off, fresh: fresh, since: time.Now()}
	switch old, kept := b.addLeftover(l); {
	case !kept:
		body.Close()
	case old != nil:
		old.drop()
	}
}

// addLeftover adds an answer, unless the client is closed. It returns the
// oldest one if there are too many.
func (b *blobCopy) addLeftover(l *leftover) (old *leftover, kept bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.at.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	c.leftovers[l] = struct{}{}
	l.timer = time.AfterFunc(leftoverTime, l.drop)
	b.leftovers = append(b.leftovers, l)
	if len(b.leftovers) > maxLeftovers {
		old = b.leftovers[0]
	}
	return old, true
}

// drop closes the answer unless somebody has taken it.
func (l *leftover) drop() {
	l.of.mu.Lock()
	i := slices.Index(l.of.leftovers, l)
	if i >= 0 {
		l.of.remove(i)
	}
	l.of.mu.Unlock()
	if i >= 0 {
		l.body.Close()
	}
}

// dropLeftover drops the oldest answer of a host that is put aside.
func (c *Client) dropLeftover(host string) {
	var oldest *leftover
	c.mu.Lock()
	for l := range c.leftovers {
		if strings.EqualFold(l.body.host, host) && (oldest == nil || l.since.Before(oldest.since)) {
			oldest = l
		}
	}
	c.mu.Unlock()
	if oldest != nil {
		oldest.drop()
	}
}

// remove takes away leftover i. The caller holds mu.
func (b *blobCopy) remove(i int) *leftover {
	l := b.leftovers[i]
	l.timer.Stop()
	b.leftovers = slices.Delete(b.leftovers, i, i+1)
	c := b.at.client
	c.mu.Lock()
	delete(c.leftovers, l)
	c.mu.Unlock()
	return l
}

// takeLeftover returns the answer that is soonest at off, nil if none comes
// there. It ends with ctx from now on.
func (b *blobCopy) takeLeftover(ctx context.Context, off int64, fresh bool) *leftover {
	b.mu.Lock()
	defer b.mu.Unlock()
	best := -1
	for i, l := range b.leftovers {
		if l.off <= off && l.fresh == fresh && (best < 0 || l.off > b.leftovers[best].off) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	l := b.remove(best)
	body := l.body
	body.unlink = context.AfterFunc(ctx, func() { body.cancel(context.Cause(ctx)) })
	return l
}

// isWhole reports whether the blob is being sent whole, or has been since
// wholes was seen.
func (b *blobCopy) isWhole(seen int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wholes != seen || b.streams > 0 || slices.ContainsFunc(b.leftovers, func(l *leftover) bool { return !l.fresh })
}

// noteWhole counts an answer that is the whole blob, and tells of the first.
func (b *blobCopy) noteWhole(from *location) {
	b.mu.Lock()
	b.wholes++
	first := b.wholes == 1
	b.mu.Unlock()
	if first {
		b.at.client.opts.Logf("%s: %s does not serve ranges of it; getting all of its %d bytes", b.name, scrub.Text(from.url.Host), b.size)
	}
}

// broken is the fault of the answer a, which should have all of the blob and
// ends after n bytes.
func (b *blobCopy) broken(a answer, n int64, err error) *fault {
	text := fmt.Sprintf("the whole blob is sent, and the answer ends after %d of %d bytes", n, b.size)
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		text += ": " + scrub.Text(err.Error())
	}
	f := &fault{verdict: busy, class: remote.ErrUnavailable, text: text + a.encoded}
	return f.by(b.at.speaker(a.from))
}

// A writeError is why the writer does not take any more of a blob.
type writeError struct{ error }

// writeTo makes one request for the blob from off on, unless an answer is put
// aside, and writes what comes to w. What comes before byte seen came before, and
// does not show that the server is alive.
func (b *blobCopy) writeTo(ctx context.Context, w io.Writer, off int64, seen *int64) (n int64, err error) {
	b.stream(1)
	defer b.stream(-1)
	a, err := b.open(ctx, off, b.size-off, reading{})
	if err != nil {
		return 0, err
	}
	reader := attemptOf(ctx).budget
	at := a.at
	err = b.skip(a, func(n int) {
		at += int64(n)
		reader.alive(int(max(0, at-max(*seen, at-int64(n)))))
		*seen = max(*seen, at)
	})
	if err != nil {
		return 0, err
	}
	body := &counted{io.LimitReader(a.body, a.n), reader.progress}
	buf := make([]byte, wholeBuffer)
	for n < a.n {
		m, err := body.Read(buf)
		if m > 0 {
			if _, err := w.Write(buf[:m]); err != nil {
				a.body.Close()
				return n, writeError{err}
			}
		}
		n += int64(m)
		*seen = max(*seen, off+n)
		if err != nil && n < a.n {
			a.body.Close()
			return n, b.broken(a, off+n, err)
		}
	}
	drain(a.body)
	return n, nil
}

// stream counts the readers of all of the blob that come and go.
func (b *blobCopy) stream(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams += n
}

// skip reads over what comes before the range of an answer, and calls alive with
// how much each piece of it has.
func (b *blobCopy) skip(a answer, alive func(n int)) error {
	n, err := io.Copy(io.Discard, &counted{io.LimitReader(a.body, a.skip), alive})
	if n < a.skip {
		a.body.Close()
		return b.broken(a, a.at+n, cmp.Or(err, io.EOF))
	}
	return nil
}

// ReadRange implements remote.WholeBlob.
func (b *blob) ReadRange(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	return b.readAt(ctx, p, off, &failover{}, reading{arrived: arrived, ranged: true})
}

// SentWhole implements remote.WholeBlob.
func (b *blob) SentWhole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.copies {
		if c.isWhole(0) {
			return true
		}
	}
	return false
}

// ReadWhole implements remote.WholeBlob.
func (b *blob) ReadWhole(ctx context.Context, w io.Writer, off int64) error {
	if off < 0 {
		return fmt.Errorf("%s: read at negative offset %d", b.name(), off)
	}
	var stopped error
	seen := int64(0)
	err := b.failover(&failover{}).run(ctx, func(ctx context.Context, e *endpoint) error {
		c := b.at(e)
		for off < b.size {
			n, err := c.writeTo(ctx, &served{w, b, e, off}, off, &seen)
			off += n
			var end writeError
			if errors.As(err, &end) {
				stopped = end.error
				return nil // it is no fault of the endpoint
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case stopped != nil:
		return stopped
	case err != nil:
		return wrap(b.name(), err)
	}
	return nil
}

// served notes which endpoint gave the bytes that are written, from off on.
type served struct {
	io.Writer
	blob *blob
	from *endpoint
	off  int64
}

func (s *served) Write(p []byte) (int, error) {
	s.blob.served.note(s.off, int64(len(p)), s.from)
	s.off += int64(len(p))
	return s.Writer.Write(p)
}
