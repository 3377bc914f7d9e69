package remote

import (
	"context"
	"errors"
	"io/fs"
	"sync"
)

// segments makes the segments of a stream, in order.
type segments struct {
	s     *stream
	b     Blob
	done  <-chan struct{}
	total int64
	size  int   // of a segment
	off   int64 // where the next one begins
	left  int   // buffers that may be made yet
}

// take returns the next segment as soon as there is a buffer for it; nil if
// the stream has ended.
func (g *segments) take() *segment {
	var buf []byte
	if g.left > 0 {
		g.left--
		buf = make([]byte, g.size)
	} else {
		select {
		case buf = <-g.s.free:
		case <-g.done:
			return nil
		}
	}
	seg := &segment{ready: make(chan struct{}), off: g.off, buf: buf[:min(int64(g.size), g.total-g.off)]}
	g.off += int64(len(seg.buf))
	g.s.ordered <- seg
	return seg
}

// probe reads the first segment. It returns as soon as ranges are known to be
// served. If they are not it reads the whole blob, and returns false.
func (g *segments) probe(ctx context.Context, b WholeBlob) bool {
	if g.off >= g.total {
		return true
	}
	from := g.off
	seg := g.take() // there is a buffer
	served, over := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(served) })
	ranged := true
	g.s.running.Go(func() {
		defer close(over)
		arrived := g.s.arrivals()
		n, err := b.ReadRange(ctx, seg.buf, from, func(n int) {
			first()
			arrived(n)
		})
		if errors.Is(err, ErrWhole) && n == 0 {
			ranged = false
			return
		}
		if errors.Is(err, ErrWhole) { // another place than the one before
			var m int
			m, err = b.ReadAt(ctx, seg.buf[n:], from+int64(n))
			n += m
		}
		arrived(n)
		seg.finish(b, n, err)
	})
	select {
	case <-served:
		return true
	case <-over:
	}
	if ranged {
		return true
	}
	w := &segmentWriter{segments: g, seg: seg}
	w.end(b.ReadWhole(ctx, w, from))
	return false
}

// A segmentWriter fills segments one after the other.
type segmentWriter struct {
	*segments
	seg *segment // nil: the next one is not begun
	n   int      // bytes in it
}

// Write implements io.Writer. It waits as long as nobody reads what was
// written before.
func (w *segmentWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if !w.begin() {
			return n, fs.ErrClosed
		}
		m := copy(w.seg.buf[w.n:], p[n:])
		w.n += m
		n += m
		w.s.arrived(m)
		if w.n == len(w.seg.buf) {
			w.finish(nil)
		}
	}
	return n, nil
}

// begin begins a segment unless one is begun. It returns false if the stream
// has ended.
func (w *segmentWriter) begin() bool {
	if w.seg == nil && w.off < w.total {
		w.seg, w.n = w.take(), 0
	}
	return w.seg != nil
}

func (w *segmentWriter) finish(err error) {
	w.seg.finish(w.b, w.n, err)
	w.seg = nil
}

// end says why nothing more comes.
func (w *segmentWriter) end(err error) {
	if w.begin() {
		w.finish(err)
	}
}
