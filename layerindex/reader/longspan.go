package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/imgfs/imgfs/layerindex/internal/spool"
)

// A span that is too long for memory is decoded into a file. If the disk has no room
// for the file, the span is decoded from its beginning for each part that somebody
// reads, and a few parts stay in memory. That is slow, and better than a read that
// fails.

const (
	partSize = maxSpanMemory
	// maxParts is how many parts a cache keeps, of all readers together.
	maxParts = 2
	// spoolRest is how long no file is tried after one failed.
	spoolRest = 30 * time.Second
)

// A longSpan is the file that a span is decoded into which is too long for memory.
type longSpan struct {
	*spool.Spool
	rest time.Time // until then no file is tried; guarded by Reader.mu
}

// readLong reads from byte at of span i, which is too long for memory.
func (r *Reader) readLong(ctx context.Context, l *layout, i int, p []byte, at int64) error {
	long, rests := r.long(l, i)
	if !rests {
		_, err := long.ReadAt(ctx, p, at)
		if err == io.EOF {
			err = nil
		}
		if !errors.Is(err, spool.ErrFile) || errors.Is(err, fs.ErrClosed) {
			return err
		}
		r.fileFailed(long, err)
	}
	for len(p) > 0 {
		from := at / partSize * partSize
		data, err := r.part(ctx, l, i, from)
		if err != nil {
			return err
		}
		n := copy(p, data[at-from:])
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// long returns the file that span i is decoded into, and whether the file must not
// be tried now.
func (r *Reader) long(l *layout, i int) (s *longSpan, rests bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.longs[i]
	if s == nil {
		sp := r.newSpan(l, i)
		s = &longSpan{Spool: spool.New(r.newTemp(sp.size), sp.size, r.produce(sp))}
		if r.longs == nil {
			r.longs = map[int]*longSpan{}
		}
		r.longs[i] = s
	}
	return s, r.opts.NewTemp == nil || time.Now().Before(s.rest)
}

// newTemp returns a function that makes a file for a span of size bytes.
func (r *Reader) newTemp(size int64) func() (spool.File, error) {
	return func() (spool.File, error) { return r.opts.NewTemp(size) }
}

// produce returns a Producer that decodes a span into a file until the reader is
// closed.
func (r *Reader) produce(s *span) spool.Producer {
	return func(ctx context.Context, w io.Writer) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.closing, cancel)()
		return s.writeTo(ctx, w)
	}
}

// fileFailed notes that the disk did not take a span.
func (r *Reader) fileFailed(l *longSpan, err error) {
	r.mu.Lock()
	l.rest = time.Now().Add(spoolRest)
	r.mu.Unlock()
	if r.opts.SpoolFailed != nil {
		r.opts.SpoolFailed(err)
	}
}

// part returns the part of span i that begins with its byte from.
func (r *Reader) part(ctx context.Context, l *layout, i int, from int64) ([]byte, error) {
	ps, key := &r.opts.Cache.parts, partKey{r, i, from}
	if data := ps.get(key); data != nil {
		return data, nil
	}
	select {
	case ps.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-ps.turn }()
	if data := ps.get(key); data != nil {
		return data, nil
	}
	data, err := r.decodePart(ctx, r.newSpan(l, i), from)
	if err != nil {
		return nil, err
	}
	ps.put(key, data)
	return data, nil
}

// decodePart decodes a span from its beginning to the end of the part that
// begins with its byte from.
func (r *Reader) decodePart(ctx context.Context, s *span, from int64) ([]byte, error) {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	w := partWriter{skip: from, data: make([]byte, 0, min(partSize, s.size-from))}
	err := s.writeTo(ctx, &w)
	switch {
	case err == nil, err == errEnough:
		return w.data, nil
	case caller.Err() == nil && r.closing.Err() != nil:
		return nil, fmt.Errorf("layer reader: %w", fs.ErrClosed)
	}
	return nil, err
}

// A partKey names a part of a long span.
type partKey struct {
	r    *Reader
	i    int   // the span
	from int64 // in the span
}

type spanPart struct {
	partKey
	data []byte // never changed
}

// spanParts are the parts of long spans that a cache keeps.
type spanParts struct {
	turn chan struct{} // has an element while somebody decodes one

	mu   sync.Mutex
	kept []spanPart // the one used last is the last
}

// get returns a part, nil if it is not there.
func (ps *spanParts) get(key partKey) []byte {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	i := slices.IndexFunc(ps.kept, func(p spanPart) bool { return p.partKey == key })
	if i < 0 {
		return nil
	}
	p := ps.kept[i]
	ps.kept = append(slices.Delete(ps.kept, i, i+1), p)
	return p.data
}

func (ps *spanParts) put(key partKey, data []byte) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.kept) == maxParts {
		ps.kept = slices.Delete(ps.kept, 0, 1)
	}
	ps.kept = append(ps.kept, spanPart{key, data})
}

// drop forgets the parts of a reader.
func (ps *spanParts) drop(r *Reader) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.kept = slices.DeleteFunc(ps.kept, func(p spanPart) bool { return p.r == r })
}

// errEnough ends the decoding of a span when a part of it is complete.
var errEnough = errors.New("enough")

// A partWriter keeps as much as data has room for, behind the first bytes.
type partWriter struct {
	skip int64
	data []byte
}

func (w *partWriter) Write(p []byte) (int, error) {
	n := len(p)
	skip := min(w.skip, int64(n))
	w.skip -= skip
	p = p[skip:]
	w.data = append(w.data, p[:min(len(p), cap(w.data)-len(w.data))]...)
	if len(w.data) == cap(w.data) {
		return n, errEnough
	}
	return n, nil
}
