package zstd

import (
	"bytes"
	"io"
)

// inSize is how much of the stream is held: any block of at most 128 KiB with
// all that can be around it in a frame of one block fits.
const inSize = 256 << 10

// An input reads the stream through a buffer and knows where in it it is.
type input struct {
	src  io.Reader
	buf  []byte
	r, w int   // buf[r:w] was read from src and not taken
	off  int64 // of buf[r] in the stream
	err  error // what ended src, io.EOF too
}

// done returns a channel that is closed when what the stream is read for ends,
// if src knows of one: as its method Done says. A nil channel never is.
func (in *input) done() <-chan struct{} {
	if src, ok := in.src.(interface{ Done() <-chan struct{} }); ok {
		return src.Done()
	}
	return nil
}

// peek returns what is buffered, at least n bytes. With an error, which is
// io.EOF at the end of the stream, and for n larger than the buffer, it
// returns fewer.
func (in *input) peek(n int) ([]byte, error) {
	for in.w-in.r < min(n, len(in.buf)) && in.err == nil {
		in.fill()
	}
	b := in.buf[in.r:in.w]
	if len(b) >= n {
		return b, nil
	}
	return b, in.err
}

// fill reads once into the buffer, which is not full.
func (in *input) fill() {
	if in.r > 0 {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for range 100 {
		n, err := in.src.Read(in.buf[in.w:])
		in.w += n
		if in.err = err; n > 0 || err != nil {
			return
		}
	}
	in.err = io.ErrNoProgress
}

// take goes past n bytes of what is buffered.
func (in *input) take(n int) {
	in.r += n
	in.off += int64(n)
}

// skip goes past n bytes, which need not be buffered.
func (in *input) skip(n int64) error {
	for n > 0 {
		b, err := in.peek(1)
		if err != nil {
			return err
		}
		k := int(min(n, int64(len(b))))
		in.take(k)
		n -= int64(k)
	}
	return nil
}

// cut returns the error for a stream that ended with err where there should
// be more.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A body reads one frame from the input, to its end and no further.
type body struct {
	in       *input
	left     int64 // of the piece that is being read: block or checksum
	last     bool  // no block follows
	checksum bool  // a checksum follows
	window   uint64
	need     uint64 // window, or the frame's length if that is less
	err      error  // why the input ended inside the frame

	head  []byte // what is left of the header to hand on
	given int64  // output of the frame so far
	// limit, if not 0, is how much output there may be before the frame has
	// to be begun again, for which kept has all that was read.
	limit    int64
	kept     [][]byte
	keptSize int
}

// enter starts on the frame that begins here, of which the input holds the
// header. The frame is handed on with a window of at most most bytes, and ends
// with errGrow where that is not enough.
func (f *body) enter(h header, most uint64) {
	*f = body{in: f.in, checksum: h.checksum, window: h.window, need: h.window}
	raw, _ := f.in.peek(h.size) // look has seen it
	raw = bytes.Clone(raw[:h.size])
	f.in.take(h.size)
	if h.sized {
		f.need = min(f.need, h.content)
	}
	f.head, _ = h.lessen(raw, min(f.need, most))
	if f.need > most {
		f.limit = int64(most)
		f.keep(raw)
	}
}

// ended reports whether all of the frame was read.
func (f *body) ended() bool { return len(f.head) == 0 && f.left == 0 && f.last && !f.checksum }

// keep keeps a copy of p.
func (f *body) keep(p []byte) {
	const piece = 64 << 10
	f.keptSize += len(p)
	for len(p) > 0 {
		i := len(f.kept) - 1
		if i < 0 || len(f.kept[i]) == cap(f.kept[i]) {
			f.kept = append(f.kept, make([]byte, 0, piece))
			continue
		}
		n := min(len(p), cap(f.kept[i])-len(f.kept[i]))
		f.kept[i] = append(f.kept[i], p[:n]...)
		p = p[n:]
	}
}

// again returns the whole frame, as it is, from its beginning.
func (f *body) again() io.Reader {
	parts := make([]io.Reader, 0, len(f.kept)+1)
	for _, p := range f.kept {
		parts = append(parts, bytes.NewReader(p))
	}
	f.limit, f.kept, f.err = 0, nil, nil
	return io.MultiReader(append(parts, f)...)
}

// Read implements io.Reader.
func (f *body) Read(p []byte) (int, error) {
	if len(f.head) > 0 {
		n := copy(p, f.head)
		f.head = f.head[n:]
		return n, nil
	}
	if f.ended() {
		return 0, io.EOF
	}
	if f.left == 0 {
		if f.err = f.next(); f.err != nil {
			return 0, f.err
		}
	}
	b, err := f.in.peek(1)
	if err != nil {
		f.err = cut(err)
		return 0, f.err
	}
	n := copy(p, b[:min(f.left, int64(len(b)))])
	if f.limit > 0 {
		f.keep(p[:n])
	}
	f.in.take(n)
	f.left -= int64(n)
	return n, nil
}

// next goes to the piece that begins here. What the blocks before it gave has
// all been handed on: the decoder takes one block at a time.
func (f *body) next() error {
	if f.last {
		f.left, f.checksum = checksumSize, false
		return nil
	}
	b, err := f.in.peek(blockHeaderSize)
	if err != nil {
		return cut(err)
	}
	blk := parseBlock(b, f.window)
	if f.limit > 0 {
		switch {
		case f.given+int64(blk.bound) > f.limit:
			return errGrow
		case f.keptSize > maxKept:
			return errKept
		}
	}
	f.left, f.last = int64(blk.size), blk.last
	return nil
}
