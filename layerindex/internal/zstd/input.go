package zstd

import "io"

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
	left     int64 // of the piece that is being read: header, block, or checksum
	last     bool  // no block follows
	checksum bool  // a checksum follows
	window   uint64
	err      error // why the input ended inside the frame
}

// enter starts on the frame that begins here.
func (f *body) enter(h header) {
	*f = body{in: f.in, left: int64(h.size), checksum: h.checksum, window: h.window}
}

// ended reports whether all of the frame was read.
func (f *body) ended() bool { return f.left == 0 && f.last && !f.checksum }

// Read implements io.Reader.
func (f *body) Read(p []byte) (int, error) {
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
	f.in.take(n)
	f.left -= int64(n)
	return n, nil
}

// next goes to the piece that begins here.
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
	f.left, f.last = int64(blk.size), blk.last
	return nil
}
