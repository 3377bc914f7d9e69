package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// StreamOptions are the settings of NewStream. Nil and zero values mean the
// defaults.
type StreamOptions struct {
	// RangeSize is how many bytes one request asks for. Default 1 MiB.
	RangeSize int
	// InFlight is how many requests run at a time. Default 4.
	InFlight int
	// From is the byte of the blob that the stream begins at. Default 0.
	From int64
	// Arrived, if not nil, is told how many more bytes have come. They may not
	// have been read yet. Calls come one at a time, and none after Close.
	Arrived func(n int)
}

const (
	defaultRangeSize = 1 << 20
	defaultInFlight  = 4
)

func (o *StreamOptions) rangeSize() int {
	if o == nil || o.RangeSize <= 0 {
		return defaultRangeSize
	}
	return o.RangeSize
}

func (o *StreamOptions) inFlight() int {
	if o == nil || o.InFlight <= 0 {
		return defaultInFlight
	}
	return o.InFlight
}

func (o *StreamOptions) from() int64 {
	if o == nil {
		return 0
	}
	return max(o.From, 0)
}

func (o *StreamOptions) arrived() func(n int) {
	if o == nil {
		return nil
	}
	return o.Arrived
}

// NewStream reads b from its start, or From, to its end. It keeps several ranges in
// flight, in order, from the moment it is made, and holds one buffer for
// each: RangeSize times InFlight bytes, or less for a small blob. A WholeBlob
// that is sent whole it reads by one request.
//
// An error comes after the bytes before it have been read, and stays; a blob
// that ends early is io.ErrUnexpectedEOF. When ctx ends, Read returns its
// error at once. Close stops all requests, waits for them, and makes a Read
// that waits return fs.ErrClosed. The result is also an io.WriterTo, which
// saves a copy. Read and WriteTo may not be called at the same time; Close
// may be called at any time, and more than once.
func NewStream(ctx context.Context, b Blob, opts *StreamOptions) io.ReadCloser {
	size := int64(opts.rangeSize())
	if n := b.Size() - opts.from(); n < size {
		size = max(n, 0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{
		arrivedFunc: opts.arrived(),
		ordered:     make(chan *segment, opts.inFlight()),
		free:        make(chan []byte, opts.inFlight()),
		done:        ctx.Done(),
		cause: func() error {
			if err := context.Cause(ctx); err == fs.ErrClosed {
				return err
			}
			return ctx.Err()
		},
		cancel: cancel,
	}
	s.running.Go(func() { s.request(ctx, b, opts.from(), int(size), opts.inFlight()) })
	return s
}

var _ io.WriterTo = (*stream)(nil)

// A stream hands on the segments that request has started, in order.
type stream struct {
	// ordered holds the segments in the blob's order; its length bounds, with
	// free, how many there are. It is closed after the last one.
	ordered chan *segment
	// free holds the buffers that have been read.
	free    chan []byte
	running sync.WaitGroup

	done   <-chan struct{}
	cause  func() error
	cancel context.CancelCauseFunc

	arriving    sync.Mutex
	arrivedFunc func(n int) // nil: nobody wants to know

	// current is the segment that is read, with rest not yet handed on.
	current *segment
	rest    []byte
	err     error
}

// A segment is one range of the blob on its way.
type segment struct {
	ready chan struct{}
	off   int64 // in the blob
	buf   []byte
	// n and err are the result, once ready is closed.
	n   int
	err error
}

// request starts the reads from off on, as many at a time as there are buffers.
func (s *stream) request(ctx context.Context, b Blob, off int64, size, inFlight int) {
	defer close(s.ordered)
	total := b.Size()
	if total < 0 {
		s.send(&segment{err: fmt.Errorf("blob %s: size %d", b.Digest(), total)})
		return
	}
	next := &segments{s: s, b: b, done: ctx.Done(), total: total, off: off, size: size, left: inFlight}
	if whole, ok := b.(WholeBlob); ok && !next.probe(ctx, whole) {
		return
	}
	for next.off < total {
		seg := next.take()
		if seg == nil {
			return
		}
		s.running.Go(func() {
			n, err := s.readAt(ctx, b, seg)
			seg.finish(b, n, err)
		})
	}
}

// readAt reads a segment.
func (s *stream) readAt(ctx context.Context, b Blob, seg *segment) (n int, err error) {
	arrived := s.arrivals()
	if p, ok := b.(ProgressBlob); ok {
		n, err = p.ReadAtProgress(ctx, seg.buf, seg.off, arrived)
	} else {
		n, err = b.ReadAt(ctx, seg.buf, seg.off)
	}
	arrived(n)
	return n, err
}

// arrivals returns a function to be told how much of a segment has come by now.
func (s *stream) arrivals() func(n int) {
	told := 0
	return func(n int) {
		if n > told {
			s.arrived(n - told)
			told = n
		}
	}
}

// arrived says that n more bytes have come.
func (s *stream) arrived(n int) {
	if s.arrivedFunc == nil {
		return
	}
	s.arriving.Lock()
	defer s.arriving.Unlock()
	s.arrivedFunc(n)
}

// send hands on a segment that has no bytes.
func (s *stream) send(seg *segment) {
	seg.ready = make(chan struct{})
	close(seg.ready)
	s.ordered <- seg
}

// finish notes what has come of the segment, n bytes and an error.
func (g *segment) finish(b Blob, n int, err error) {
	g.n, g.err = n, err
	switch {
	case n == len(g.buf):
		g.err = nil
	case err == nil, errors.Is(err, io.EOF):
		g.err = fmt.Errorf("blob %s ends at byte %d of %d: %w", b.Digest(), g.off+int64(n), b.Size(), io.ErrUnexpectedEOF)
	}
	close(g.ready)
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: it writes the rest of the blob to w, a
// range at a time.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		switch err := s.fill(); {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
		n, err := w.Write(s.rest)
		total += int64(n)
		s.rest = s.rest[n:]
		if err != nil {
			return total, err
		}
	}
}

// fill waits until there are bytes in rest, or returns the error that stands
// in their place.
func (s *stream) fill() error {
	// The error of an ended context wins over bytes that are ready.
	if s.err == nil {
		select {
		case <-s.done:
			s.err = s.cause()
		default:
		}
	}
	for s.err == nil && len(s.rest) == 0 {
		s.err = s.next()
	}
	return s.err
}

// next gives back the segment that has been read and waits for the next.
func (s *stream) next() error {
	if s.current != nil {
		if err := s.current.err; err != nil {
			s.cancel(err)
			return err
		}
		s.free <- s.current.buf[:cap(s.current.buf)]
		s.current = nil
	}
	select {
	case seg, ok := <-s.ordered:
		if !ok {
			return s.end()
		}
		s.current = seg
	case <-s.done:
		return s.cause()
	}
	select {
	case <-s.current.ready:
		s.rest = s.current.buf[:s.current.n]
		return nil
	case <-s.done:
		return s.cause()
	}
}

// end tells the end of the blob from that of the context, at which request
// stops too.
func (s *stream) end() error {
	select {
	case <-s.done:
		return s.cause()
	default:
		return io.EOF
	}
}

// Close implements io.Closer. It returns nil.
func (s *stream) Close() error {
	s.cancel(fs.ErrClosed)
	s.running.Wait()
	return nil
}
