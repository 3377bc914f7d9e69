package reader

import (
	"context"
	"errors"

	"github.com/imgfs/imgfs/layerindex"
)

type expectedKey struct{}

// IsExpected reports whether a read of a Blob is for Reader.Expect, so that nobody waits for
// it. A Blob that has to fetch something for it may give an error instead: a reader that
// comes meanwhile tries again.
func IsExpected(ctx context.Context) bool { return ctx.Value(expectedKey{}) != nil }

// maxVain is how many expected spans in a row make room for what is read in their place.
const maxVain = 16

// errVain: too much of what was expected is not read.
var errVain = errors.New("others are read")

// Expect decodes the bytes from off to end of the tar, which are expected to be read soon, into
// the cache: as far ahead of readers as half of it holds, and only while a processor is idle.
// It waits for both until ctx ends, and returns when all is decoded, or something cannot be:
// readers find out why. It reports whether it is of use to go on: readers that go another way
// make room, for a while.
func (r *Reader) Expect(ctx context.Context, off, end int64) bool {
	if off < 0 || off >= min(end, r.x.Size()) || r.x.Codec() == layerindex.Plain {
		return true
	}
	l, err := r.layout()
	if err != nil || l.covered(off, end) != nil {
		return true
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, expectedKey{}, true))
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	for i := l.Find(off); off < end; i++ {
		start, _ := l.Start(i)
		stop, _ := l.End(i)
		if err := r.expectSpan(ctx, l, i, min(end, stop)-start); err != nil {
			return err != errVain
		}
		off = stop
	}
	return true
}

// expectSpan decodes span i up to need, unless it is too long to wait in the cache.
func (r *Reader) expectSpan(ctx context.Context, l *layout, i int, need int64) error {
	c, key := r.opts.Cache, spanKey{r, i}
	size := r.newSpan(l, i).size
	if size > min(maxSpanMemory, c.limit/offerShare) {
		return nil
	}
	if err := c.awaitTurn(ctx, key, size); err != nil {
		return err
	}
	defer c.endJob()
	s := c.offered(key, func() *span { return r.newSpan(l, i) })
	return s.decodeAhead(ctx, need)
}

// awaitTurn waits until a processor is idle, and there is room for a span that nobody has
// asked for, or it is there. It reserves the processor until endJob.
func (c *SpanCache) awaitTurn(ctx context.Context, key spanKey, size int64) error {
	for {
		changed, err := c.turn(key, size)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// turn reserves a processor for a span, or returns what is closed when to try again.
func (c *SpanCache) turn(key spanKey, size int64) (changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vain > maxVain {
		c.vain = 0
		return nil, errVain
	}
	c.noRoom = c.spans[key] == nil && c.offerUsed+size > c.limit/offerShare
	if !c.noRoom && c.reserve() {
		return nil, nil
	}
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed, nil
}

// tell wakes who waits for a turn. The caller holds mu.
func (c *SpanCache) tell() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}
