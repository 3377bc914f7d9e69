package reader

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/decoders"
)

// A span is a piece of the tar that is decoded from one checkpoint, as far as
// readers wanted it. One goroutine at a time decodes. All readers wait until it has
// got as far as they need. In contents space it is a run, which is decoded whole.
type span struct {
	r     *Reader
	l     *layout
	i     int
	in    int64   // where its input ends
	size  int64   // of the whole span, in bytes of output
	ratio float64 // bytes of the blob for a byte of output

	mu      sync.Mutex
	buf     []byte        // what is decoded; only appended to
	goal    int64         // how far the waiting readers need it
	ahead   int64         // how far it is wanted beyond that, before it is needed
	waiting int           // readers, and jobs that decode ahead
	changed chan struct{} // closed when buf has grown or decoding stopped; nil while nobody decodes
	err     error         // why the last try to decode stopped, for its waiters
	early   bool          // err is of a read for what nobody waited for yet
	cancel  context.CancelFunc
	meter   Meter // of who began the try to decode, nil if there is none

	// dec is the decoder while one is at work, of the goroutine that decodes.
	// Between tries it is with the cache.
	dec *decoding
}

// A decoding is a decoder with its input.
type decoding struct {
	codec.Decoder
	src *blobStream
	// over is output that belongs to the next span.
	over []byte
}

// next decodes one more piece, when about need bytes of input are expected to
// be of use. When ctx has ended it returns ctx.Err(): a little input can decode
// to very much.
func (d *decoding) next(ctx context.Context, need int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.over != nil {
		out := d.over
		d.over = nil
		return out, nil
	}
	d.src.ctx, d.src.hint = ctx, need
	return d.Next()
}

// read copies len(p) bytes from byte at of the span.
func (s *span) read(ctx context.Context, p []byte, at int64) error {
	need := at + int64(len(p))
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(s.buf)) < need {
		if err := s.wait(ctx, need); err != nil {
			return err
		}
	}
	copy(p, s.buf[at:])
	return nil
}

// held is read if that takes no decoding.
func (s *span) held(p []byte, at int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(s.buf)) < at+int64(len(p)) {
		return false
	}
	copy(p, s.buf[at:])
	return true
}

// wait has the span decoded up to need. It is called and returns with mu held.
func (s *span) wait(ctx context.Context, need int64) error {
	s.waiting++
	defer s.leave()
	for int64(len(s.buf)) < need {
		s.goal = max(s.goal, need)
		if err := s.sleep(ctx); err != nil {
			return err
		}
		// A failure while nobody waited says nothing about this read.
		if s.changed == nil && s.err != nil && !s.early && int64(len(s.buf)) < need {
			return s.err
		}
	}
	return nil
}

// decodeAhead has the span decoded up to need, for readers that are expected. Bytes
// that readers wait for meanwhile come first. It returns when no goroutine decodes
// for it any more.
func (s *span) decodeAhead(ctx context.Context, need int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.waitAhead(ctx, need)
	for s.changed != nil && int64(len(s.buf)) >= max(s.goal, s.ahead) {
		changed := s.changed
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
	return err
}

// waitAhead is called and returns with mu held.
func (s *span) waitAhead(ctx context.Context, need int64) error {
	s.waiting++
	defer s.leave()
	for int64(len(s.buf)) < need {
		s.ahead = max(s.ahead, need)
		if err := s.sleep(ctx); err != nil {
			s.ahead = 0 // another job, if there is one, sets its own
			return err
		}
		if s.changed == nil && s.err != nil && int64(len(s.buf)) < need {
			return s.err
		}
	}
	return nil
}

// sleep waits until something has changed, with mu released, and has the span
// decoded meanwhile.
func (s *span) sleep(ctx context.Context) error {
	if s.changed == nil {
		s.start(ctx)
	}
	changed := s.changed
	s.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	s.mu.Lock()
	return ctx.Err()
}

// leave counts a reader out. The last one stops the decoding, since nobody waits for
// it any more.
func (s *span) leave() {
	if s.waiting--; s.waiting == 0 {
		s.goal, s.ahead = 0, 0
		if s.cancel != nil {
			s.cancel()
		}
	}
}

// start begins a try to decode up to goal.
func (s *span) start(ctx context.Context) {
	// The decoding serves other readers too, so it does not end with the first
	// one.
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.changed = make(chan struct{})
	s.meter = meterOf(ctx)
	s.err, s.early = nil, s.goal <= int64(len(s.buf))
	s.r.opts.Cache.countDecoding(1)
	go s.decode(ctx)
}

// decode runs one try and tells the waiting readers how it ended. It keeps a decoder
// that did not fail for a reader that goes on from there.
func (s *span) decode(ctx context.Context) {
	err := s.decodeToGoal(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.suspend()
	} else if IsExpected(ctx) {
		s.early = true // its reads have waited for nothing
	}
	s.r.opts.Cache.countDecoding(-1)
	s.dec = nil
	if ctx.Err() == nil {
		s.err = err // else nobody waited: a reader that came since tries again
	}
	s.cancel()
	s.cancel, s.meter = nil, nil
	close(s.changed)
	s.changed = nil
}

// suspend puts the decoder away, if there is one that may go on. The caller holds
// mu.
func (s *span) suspend() {
	if s.dec != nil && !s.dec.src.failed {
		s.r.opts.Cache.suspend(s.r, s.out(), s.dec, s.followed())
		s.dec = nil
	}
}

// followed returns the key of the span behind this one if there is nothing
// left of this one to decode. The caller holds mu.
func (s *span) followed() *spanKey {
	if int64(len(s.buf)) < s.size {
		return nil
	}
	return &spanKey{s.r, s.i + 1}
}

// out is where in the tar the next byte goes that is decoded.
func (s *span) out() int64 {
	start, _ := s.l.Start(s.i)
	return start + int64(len(s.buf))
}

// decodeToGoal decodes as far as readers want it. They may come to want more
// meanwhile.
func (s *span) decodeToGoal(ctx context.Context) error {
	if s.l.spans == nil {
		return s.decodeRun(ctx)
	}
	if err := s.ensureDecoder(ctx); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		have, goal, ahead := int64(len(s.buf)), s.goal, s.ahead
		s.early = have >= goal || s.dec.src.failed
		s.mu.Unlock()
		if have >= max(goal, ahead) || have == s.size {
			return nil
		}
		// Small steps while nobody waits, because a reader may come.
		need := min(s.input(ahead-have), aheadPiece)
		if have < goal {
			need = s.input(goal - have)
		}
		out, err := s.dec.next(ctx, need)
		if err == io.EOF {
			return s.shortError(s.size - have)
		}
		if err != nil {
			return cutOff(err)
		}
		s.publish(out)
	}
}

// aheadPiece is how much of the blob is read at once while decoding ahead.
const aheadPiece = 128 << 10

// input is about how much of the blob n bytes of output take, and the output beyond
// them that a decoder collects before it hands on any.
func (s *span) input(n int64) int64 {
	const beyond, spare = 64 << 10, 16 << 10
	return int64(float64(n+beyond)*s.ratio) + spare
}

func (s *span) shortError(missing int64) error {
	return fmt.Errorf("%w: layer ends %d bytes before the end of a span", layerindex.ErrIndex, missing)
}

// ensureDecoder gets a decoder that goes on where the last one has stopped:
// that one, or a new one from the checkpoint.
func (s *span) ensureDecoder(ctx context.Context) (err error) {
	if s.dec = s.r.opts.Cache.resume(s.r, s.out()); s.dec != nil {
		s.dec.src.end = s.in
		return nil
	}
	s.mu.Lock()
	need := s.goal
	s.mu.Unlock()
	if s.dec, err = s.open(ctx, s.input(need)); err != nil {
		return err
	}
	for skip := int64(len(s.buf)); skip > 0; {
		out, err := s.dec.next(ctx, s.input(skip))
		if err != nil {
			return err
		}
		if n := int64(len(out)); n > skip {
			s.publish(out[skip:])
		}
		skip -= int64(len(out))
	}
	return nil
}

// open starts a decoder at the span's checkpoint, when about need bytes of input
// are expected to be of use.
func (s *span) open(ctx context.Context, need int64) (*decoding, error) {
	p, err := s.l.spans.Checkpoint(s.i)
	if err != nil {
		return nil, err
	}
	src := &blobStream{blob: s.r.blob, off: p.In, end: s.in, ctx: ctx, hint: need}
	if p.Symbol > 0 {
		src.hint = 0 // only the header of the block, and then from another place
	}
	dec, err := decoders.Resume(s.l.codec, src, p, s.r.opts.Cache.spare())
	if err != nil {
		return nil, err
	}
	return &decoding{Decoder: dec, src: src}, nil
}

// publish appends decoded bytes, up to the span's end, and wakes the readers. At
// the end it puts the decoder away first: they may go on with the next span.
func (s *span) publish(out []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf)+len(out) > cap(s.buf) {
		s.grow(max(s.goal, s.ahead) + int64(len(out)))
	}
	n := min(int64(len(out)), s.size-int64(len(s.buf)))
	s.buf = append(s.buf, out[:n]...)
	if s.meter != nil {
		s.meter.Decoded(n)
	}
	if n < int64(len(out)) {
		s.dec.over = slices.Clone(out[n:])
	}
	if int64(len(s.buf)) == s.size {
		s.suspend()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// grow makes room for n bytes, or for all: at most maxSpanMemory. The caller
// holds mu.
func (s *span) grow(n int64) {
	if n > s.size/2 || len(s.buf) > 0 {
		s.buf = append(s.r.opts.Cache.buffer(s.size), s.buf...)
		return
	}
	s.buf = make([]byte, 0, n)
}

// retire returns the memory of a span that has left the cache, or nil if somebody is
// using it. A reader that still holds the span decodes it again for itself.
func (s *span) retire() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting > 0 || s.changed != nil {
		return nil
	}
	buf := s.buf
	s.buf = nil
	return buf
}

// writeTo decodes the whole span into w. It keeps nothing of it. When ctx ends
// it returns ctx.Err(), soon.
func (s *span) writeTo(ctx context.Context, w io.Writer) error {
	if s.l.spans == nil {
		return s.writeRun(ctx, w)
	}
	_, asked := s.l.spans.Start(s.i)
	dec, err := s.open(ctx, maxAsk)
	if err != nil {
		return err
	}
	// zstd's decoders share the memory for their largest windows.
	if c, ok := dec.Decoder.(io.Closer); ok {
		defer c.Close()
	}
	for left := s.size; left > 0; {
		s.runAhead(dec.src.off, &asked)
		out, err := dec.next(ctx, min(s.input(left), maxAsk))
		switch {
		case err == io.EOF:
			return s.shortError(left)
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		}
		out = out[:min(int64(len(out)), left)]
		if _, err := w.Write(out); err != nil {
			return err
		}
		left -= int64(len(out))
	}
	return nil
}

// runAhead has the blob brought ahead of a decoder that is at byte in of it and
// goes on to the span's end. It was asked for up to asked.
func (s *span) runAhead(in int64, asked *int64) {
	if to := min(in+maxWindow, s.in); to-*asked >= maxAsk || to == s.in {
		s.r.prefetch(*asked, to)
		*asked = max(*asked, to)
	}
}
