package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

const (
	// patchSkip is how many bytes that are on disk a request for what is missing around
	// them brings again, so that it need not be two requests; maxPatchSkip where the
	// round trip to the source costs more.
	patchSkip, maxPatchSkip = 128 << 10, 1 << 20
	// maxPatches is how many answers are kept for reads that come.
	maxPatches = 4
)

// Patched returns the whole blob for a pass that checks its digest, in as few new bytes
// as possible: what is on disk and matches its cut comes from there, and all else straight
// from the source, as it gives it. That is neither checked nor stored. A wrong digest
// says nothing of the cuts until all of it came from the source: Match may go by less than
// all bytes of a cut.
//
// The source is asked for as much at once as ReadAt asks for at most, however small the
// reads are, if these go from the beginning to the end, one by one or some at a time
// (remote.NewStream). For that up to four answers are held in memory.
//
// What comes from the source is counted in the Stats of the Blob. The result is a
// remote.WholeBlob if the source is one.
func (b *Blob) Patched() remote.Blob {
	if b.s.local {
		return b.src
	}
	p := &patched{b: b}
	if whole, ok := b.src.(remote.WholeBlob); ok {
		return &patchedWhole{p, whole}
	}
	return p
}

// patched is what Patched returns.
type patched struct {
	b *Blob

	mu      sync.Mutex
	patches []*patch // the oldest first
}

var (
	_ remote.Counted   = (*patched)(nil)
	_ remote.WholeBlob = (*patchedWhole)(nil)
)

// A patch is an answer of the source.
type patch struct {
	off, end int64         // in the blob
	left     int64         // bytes that were not read yet; guarded by patched.mu
	done     chan struct{} // closed when data and err are set
	data     []byte
	err      error // why data is short
}

// Digest implements remote.Blob.
func (x *patched) Digest() digest.Digest { return x.b.Digest() }

// Size implements remote.Blob.
func (x *patched) Size() int64 { return x.b.Size() }

// TakeReceived implements remote.Counted: what has come is counted already.
func (x *patched) TakeReceived() (int64, bool) { return 0, true }

// ReadAt implements remote.Blob.
func (x *patched) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return x.readAt(ctx, p, off, false)
}

// readAt is ReadAt. With ranged it fails with remote.ErrWhole if the source sends all of
// the blob.
func (x *patched) readAt(ctx context.Context, p []byte, off int64, ranged bool) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("blob %s: read at negative offset %d: %w", x.Digest(), off, fs.ErrInvalid)
	}
	var atEnd error
	if rest := max(0, x.Size()-off); int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	for n < len(p) {
		m, err := x.readSome(ctx, p[n:], off+int64(n), ranged)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, atEnd
}

// readSome fills p from off as far as one answer, or the disk, goes.
func (x *patched) readSome(ctx context.Context, p []byte, off int64, ranged bool) (int, error) {
	if n, err := x.readHeld(ctx, p, off); n > 0 || err != nil {
		return n, err
	}
	a, mine := x.patchAt(off)
	if mine {
		x.fetch(ctx, a, ranged)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	n := 0
	if at := off - a.off; at < int64(len(a.data)) {
		n = copy(p, a.data[at:])
	}
	x.took(a, int64(n))
	if mine && n < len(p) {
		return n, a.err // somebody else's failure need not be this one's
	}
	return n, ctx.Err()
}

// readHeld fills p from off as far as the disk has it, unless an answer has it, too.
func (x *patched) readHeld(ctx context.Context, p []byte, off int64) (int, error) {
	s := x.b.s
	if x.find(off) != nil || s.refuted() != nil {
		return 0, ctx.Err()
	}
	file := s.openFileTo(false)
	if file == nil {
		return 0, ctx.Err()
	}
	return x.b.readHeld(ctx, file, p, off)
}

// find returns the answer that has, or will have, the byte at off; nil if there is none.
func (x *patched) find(off int64) *patch {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.findLocked(off)
}

func (x *patched) findLocked(off int64) *patch {
	i := slices.IndexFunc(x.patches, func(a *patch) bool { return a.off <= off && off < a.end })
	if i < 0 {
		return nil
	}
	return x.patches[i]
}

// patchAt returns the answer that has the byte at off. If it is mine the caller has to
// fetch it.
func (x *patched) patchAt(off int64) (a *patch, mine bool) {
	end := x.extent(off)
	x.mu.Lock()
	defer x.mu.Unlock()
	if a := x.findLocked(off); a != nil {
		return a, false
	}
	for _, a := range x.patches {
		if a.off > off {
			end = min(end, a.off)
		}
	}
	if len(x.patches) >= maxPatches {
		// Whoever waits for it has it.
		x.patches = x.patches[1:]
	}
	a = &patch{off: off, end: end, left: end - off, done: make(chan struct{})}
	x.patches = append(x.patches, a)
	return a, true
}

// extent returns where a request ends that begins at off, where a byte is missing.
func (x *patched) extent(off int64) int64 {
	s := x.b.s
	limit := min(s.Size, off+max(1, s.perRequest()))
	first, end := s.Span(off, limit)
	words := make([]uint32, end-first)
	if file := s.openFileTo(false); file != nil && s.refuted() == nil {
		words = file.present(first, end)
	}
	line := s.c.sched.line.stats()
	skip := min(max(patchSkip, int64(line.Rate*line.Trip.Seconds())), maxPatchSkip)
	need := off // where what is missing ends
	for at, k := off, first; at < limit && at-need <= skip; {
		missing := at == off // else it would have been read
		if k < end && s.Begin(k) <= at {
			missing = missing || words[k-first] == 0
			_, at = s.Bounds(k)
			k++
		} else { // a gap
			missing, at = true, s.Begin(k)
		}
		if missing {
			need = at
		}
	}
	return min(need, limit)
}

// fetch gets an answer from the source.
func (x *patched) fetch(ctx context.Context, a *patch, ranged bool) {
	defer close(a.done)
	s, src := x.b.s, x.b.src
	buf := make([]byte, a.end-a.off)
	n, err := 0, error(nil)
	s.countRequest()
	whole, ok := src.(remote.WholeBlob)
	if ok {
		n, err = whole.ReadRange(ctx, buf, a.off, nil)
	}
	if !ok || errors.Is(err, remote.ErrWhole) && !ranged {
		n, err = src.ReadAt(ctx, buf, a.off)
	}
	n = max(0, min(n, len(buf)))
	s.addFetched(remote.Received(src, int64(n)))
	a.data = buf[:n]
	if n == len(buf) {
		return
	}
	if a.err = err; err == nil || errors.Is(err, io.EOF) {
		a.err = fmt.Errorf("blob %s ends at byte %d of %d: %w", s.digest, a.off+int64(n), s.Size, io.ErrUnexpectedEOF)
	}
	x.drop(a)
}

// took notes that n bytes of an answer were read. One that was read, or is short, is
// not needed any more.
func (x *patched) took(a *patch, n int64) {
	x.mu.Lock()
	a.left -= n
	over := a.left <= 0
	x.mu.Unlock()
	if over {
		x.drop(a)
	}
}

func (x *patched) drop(a *patch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.patches = slices.DeleteFunc(x.patches, func(o *patch) bool { return o == a })
}

// patchedWhole is patched of a source that may send the blob whole.
type patchedWhole struct {
	*patched
	whole remote.WholeBlob
}

// ReadRange implements remote.WholeBlob. Where the source is known to send the blob whole
// nothing is saved by what is on disk.
func (x *patchedWhole) ReadRange(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	if x.SentWhole() {
		return 0, fmt.Errorf("blob %s: %w", x.Digest(), remote.ErrWhole)
	}
	n, err := x.readAt(ctx, p, off, true)
	if n > 0 && arrived != nil {
		arrived(n)
	}
	return n, err
}

// ReadWhole implements remote.WholeBlob.
func (x *patchedWhole) ReadWhole(ctx context.Context, w io.Writer, off int64) error {
	x.b.s.countRequest()
	c := &countingWriter{w: w}
	err := x.whole.ReadWhole(ctx, c, off)
	x.b.s.addFetched(remote.Received(x.b.src, c.n))
	return err
}

// SentWhole implements remote.WholeBlob.
func (x *patchedWhole) SentWhole() bool { return x.whole.SentWhole() }

// A countingWriter counts what it hands on.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
