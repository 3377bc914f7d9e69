package build

import (
	"io"
	"sync/atomic"
)

// A fan hands pieces of a stream to several stages, in order, and takes the
// buffers back. It bounds how far the fastest stage can run ahead.
type fan struct {
	size int         // of a buffer
	free chan *piece // nil stands for a buffer not made yet
	to   []chan *piece
}

type piece struct {
	buf  []byte       // whole
	n    int          // bytes in use
	left atomic.Int32 // stages that have not released it
}

func newFan(size, stages int) *fan {
	f := &fan{size: size, free: make(chan *piece, piecesInFlight)}
	for range piecesInFlight {
		f.free <- nil
	}
	for range stages {
		f.to = append(f.to, make(chan *piece, piecesInFlight))
	}
	return f
}

// get waits for a free buffer.
func (f *fan) get() *piece {
	p := <-f.free
	if p == nil {
		p = &piece{buf: make([]byte, f.size)}
	}
	return p
}

// put hands the first n bytes of a buffer to all stages.
func (f *fan) put(p *piece, n int) {
	if n == 0 {
		f.free <- p
		return
	}
	p.n = n
	p.left.Store(int32(len(f.to)))
	for _, c := range f.to {
		c <- p
	}
}

func (f *fan) close() {
	for _, c := range f.to {
		close(c)
	}
}

// release says that one stage is through with a piece; the last one's word
// frees it.
func (f *fan) release(p *piece) {
	if p.left.Add(-1) == 0 {
		f.free <- p
	}
}

// each calls fn with every piece for one stage.
func (f *fan) each(stage int, fn func([]byte)) {
	for p := range f.to[stage] {
		fn(p.buf[:p.n])
		f.release(p)
	}
}

// reader returns the pieces of one stage as a stream. It has to be read to
// its end.
func (f *fan) reader(stage int) io.Reader { return &fanReader{f: f, stage: stage} }

type fanReader struct {
	f     *fan
	stage int
	cur   *piece
	off   int
}

func (r *fanReader) Read(b []byte) (int, error) {
	if r.cur == nil {
		p, ok := <-r.f.to[r.stage]
		if !ok {
			return 0, io.EOF
		}
		r.cur, r.off = p, 0
	}
	n := copy(b, r.cur.buf[r.off:r.cur.n])
	r.off += n
	if r.off == r.cur.n {
		r.f.release(r.cur)
		r.cur = nil
	}
	return n, nil
}
