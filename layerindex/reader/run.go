package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/decoders"
)

// A run is decoded whole, from bytes that are in memory, member by member. A decoder
// is never carried from one member to the next: behind its content a member decodes to
// padding and headers, which have no place in contents space.

const (
	// contentsAlign is what the content of a file begins at a multiple of. A
	// member may end before the padding that goes up to there.
	contentsAlign = 512
	// runSlack is what a buffer for a run has room for behind it: a decoder that
	// may write beyond what is wanted is faster.
	runSlack = 4 << 10
	// keptInput is the largest buffer for input that is kept for the next run.
	keptInput = 1 << 20
)

// A runDecoder decodes runs. It is for one goroutine at a time.
type runDecoder struct {
	members decoders.Members
	in      []byte
}

var runDecoders = sync.Pool{New: func() any { return new(runDecoder) }}

// release leaves the decoder to others.
func (d *runDecoder) release() {
	if cap(d.in) > keptInput {
		d.in = nil
	}
	runDecoders.Put(d)
}

// input returns memory for n bytes.
func (d *runDecoder) input(n int64) []byte {
	if int64(cap(d.in)) < n {
		d.in = make([]byte, n)
	}
	return d.in[:n]
}

// decode decodes run i of l, whose bytes in the blob are data, to out, which has the
// length of the run. It may write anything to out between its length and its capacity.
// After each member it calls have with how much of out is there, and ends when
// that returns an error.
func (d *runDecoder) decode(l *layout, i int, data, out []byte, have func(n int) error) error {
	r := &l.runs[i]
	for k := int(r.member); k < int(l.runs[i+1].member); k++ {
		m := l.member(i, k)
		from, to := m.out-r.out, m.outEnd-r.out
		n, err := d.members.Decode(l.codec, out[from:to], data[m.in-r.in:m.inEnd-r.in])
		if err != nil {
			return memberError(m, err)
		}
		if err := m.short(to - from - int64(n)); err != nil {
			return err
		}
		clear(out[from+int64(n) : to])
		if err := have(int(to)); err != nil {
			return err
		}
	}
	return nil
}

// stream decodes run i of l, whose bytes in the blob are data, into w. It keeps nothing
// of it. When ctx ends it returns ctx.Err(), soon.
func (d *runDecoder) stream(ctx context.Context, l *layout, i int, data []byte, w io.Writer) error {
	r := &l.runs[i]
	for k := int(r.member); k < int(l.runs[i+1].member); k++ {
		m := l.member(i, k)
		if err := d.streamMember(ctx, l.codec, m, data[m.in-r.in:m.inEnd-r.in], w); err != nil {
			return err
		}
	}
	return nil
}

// streamMember is stream for one member.
func (d *runDecoder) streamMember(ctx context.Context, c layerindex.Codec, m memberRange, data []byte, w io.Writer) error {
	src := &memorySource{done: ctx.Done()}
	src.Reset(data)
	dec, err := d.members.Resume(c, src, codec.Checkpoint{In: m.in, Out: m.out, Start: true})
	if err != nil {
		return err
	}
	// zstd's decoders share the memory for their largest windows.
	if c, ok := dec.(io.Closer); ok {
		defer c.Close()
	}
	left := m.outEnd - m.out
	for left > 0 {
		out, err := dec.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return memberError(m, err)
		}
		out = out[:min(int64(len(out)), left)]
		if _, err := w.Write(out); err != nil {
			return err
		}
		left -= int64(len(out))
	}
	if err := m.short(left); err != nil {
		return err
	}
	_, err = w.Write(make([]byte, left))
	return err
}

// short returns the error for a member that ends n bytes early, if there is one: it
// need not have the padding behind a content.
func (m memberRange) short(n int64) error {
	if n < contentsAlign {
		return nil
	}
	return fmt.Errorf("%w: the member at byte %d of the blob ends %d bytes before its content", layerindex.ErrIndex, m.in, n)
}

// memberError gives an error from a decoder of one member its place in the blob.
func memberError(m memberRange, err error) error {
	return fmt.Errorf("member at byte %d of the blob: %w", m.in, cutOff(err))
}

// cutOff makes it an error of the index if a decoder found its input at an end that the
// index has set: bytes that do not come have another error.
func cutOff(err error) error {
	cause := err
	if e := (*codec.Error)(nil); errors.As(err, &e) {
		cause = e.Err
	}
	if cause == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %w", layerindex.ErrIndex, err)
	}
	return err
}

// A memorySource is input in memory for a decoder that may have to wait for memory.
type memorySource struct {
	bytes.Reader
	done <-chan struct{}
}

func (s *memorySource) Done() <-chan struct{} { return s.done }

// decodeRun decodes all of the span, which is a run. Mostly the bytes of the blob are
// checked by decoding them when they are read, and then there is nothing left to do.
func (s *span) decodeRun(ctx context.Context) error {
	d := runDecoders.Get().(*runDecoder)
	defer d.release()
	data, err := s.readInput(ctx, d)
	s.mu.Lock()
	done := int64(len(s.buf)) == s.size
	s.mu.Unlock()
	if done || err != nil {
		return err
	}
	buf := s.r.runBuffer(s.l, s.i)
	if err := d.decode(s.l, s.i, data, buf, func(int) error { return ctx.Err() }); err != nil {
		s.r.reuse(buf)
		return err
	}
	s.r.reuse(s.fill(buf))
	return nil
}

// writeRun is writeTo for a run.
func (s *span) writeRun(ctx context.Context, w io.Writer) error {
	d := runDecoders.Get().(*runDecoder)
	defer d.release()
	// All of it at once: a decoder that has the memory for large windows must
	// not wait for others that want it to check these bytes.
	data, err := s.readInput(ctx, d)
	if err != nil {
		return err
	}
	return d.stream(ctx, s.l, s.i, data, w)
}

// readInput reads the bytes of the blob that a run is decoded from.
func (s *span) readInput(ctx context.Context, d *runDecoder) ([]byte, error) {
	_, start := s.l.Start(s.i)
	data := d.input(s.in - start)
	n, err := s.r.blob.ReadAt(ctx, data, start)
	if n == len(data) {
		return data, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// fill makes buf what is decoded of the span, which is all, and returns the memory that
// is not needed.
func (s *span) fill(buf []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(s.buf)) == s.size {
		return buf
	}
	s.buf, buf = buf, s.buf
	if s.meter != nil {
		s.meter.Decoded(s.size)
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return buf
}

// runBuffer returns memory for run i. Of no reader it is new.
func (r *Reader) runBuffer(l *layout, i int) []byte {
	out, _ := l.Start(i)
	end, _ := l.End(i)
	if r == nil {
		return make([]byte, end-out, end-out+runSlack)
	}
	return r.opts.Cache.buffer(end - out + runSlack)[:end-out]
}

// reuse takes memory back that runBuffer gave.
func (r *Reader) reuse(buf []byte) {
	if r != nil {
		r.opts.Cache.reuse(buf)
	}
}

// offer gives the reader a run that was decoded to check it.
func (r *Reader) offer(l *layout, i int, buf []byte) {
	if r != nil {
		s := r.opts.Cache.offered(spanKey{r, i}, func() *span { return r.newSpan(l, i) })
		r.reuse(s.fill(buf))
	}
}
