// Package zstd decodes layers that are zstd streams (RFC 8878) and takes down
// where their frames begin: the only places where decoding can start.
//
// The bytes come from klauspost/compress. It does not tell where a frame ends
// in its input, so this package walks the frame and block headers itself and
// gives the decoder one frame at a time. That also makes it possible to
// decode a small frame, of which zstd:chunked has one for every file, in one
// piece and without a window.
//
// A stream is what the zstd program takes: one frame or more, each with or
// without content size and checksum, and skippable frames, which carry no
// output. The tables of the seekable format and of zstd:chunked are such
// frames. A stream without any frame, bytes behind the last frame, and frames
// that need a dictionary are errors.
package zstd

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// outSize is the longest piece that Next returns.
const outSize = 256 << 10

// A Decoder decodes a stream from the start of a frame to its end. It reads
// up to 256 KiB ahead of what it hands on.
//
// A frame of at most 256 KiB is handed on when all of it, with its checksum,
// was found right. Of a longer one most is handed on before its checksum is
// seen.
type Decoder struct {
	in     input
	body   body          // what zstd reads
	zstd   *zstd.Decoder // nil until needed; the large one while hold is not nil
	window uint64        // the largest allowed
	out    []byte
	pos    int64 // in the output: what Next has returned
	err    error // what Next returns from now on

	any    bool // a frame was seen, if only a skippable one
	inside bool // zstd is inside a frame, which body hands to it
	// The frame that is being decoded:
	start   int64 // where it begins in the stream
	first   int   // where it begins in out, 0 if before out
	silent  bool  // it has given no output so far
	hold    *hold
	dropped runtime.Cleanup
	// eager says to wait for the large decoder at a frame's beginning.
	eager bool
	// mark, if not nil, is called with the places in the stream and in the
	// output where a frame begins, once the frame is known to have output.
	mark func(in, out int64)
}

var _ codec.Decoder = (*Decoder)(nil)

// Resume returns a decoder that starts at a checkpoint of an Indexer. The
// first byte that src gives is byte cp.In of the stream; places in errors
// count from the stream's start. If src has a method Done, as a context has,
// waiting for memory ends when its channel is closed. It fails for a checkpoint that is not the
// start of a frame.
func Resume(src io.Reader, cp codec.Checkpoint) (*Decoder, error) {
	if !cp.Start || cp.Bit != 0 || cp.Symbol != 0 || cp.In < 0 || cp.Out < 0 {
		return nil, fmt.Errorf("checkpoint at byte %d is not the start of a zstd frame", cp.In)
	}
	d := new(Decoder)
	d.init(src, cp)
	return d, nil
}

func (d *Decoder) init(src io.Reader, cp codec.Checkpoint) {
	d.in = input{src: src, off: cp.In, buf: make([]byte, inSize)}
	d.body.in = &d.in
	d.window = MaxWindow
	d.pos = cp.Out
}

// Next implements codec.Decoder. Pieces have at most 256 KiB. After an error
// it returns the same error again.
func (d *Decoder) Next() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	n, err := d.fill()
	d.pos += int64(n)
	if d.err = err; err != nil {
		d.end()
	}
	if n == 0 {
		return nil, err
	}
	return d.out[:n], nil
}

// fill decodes into out until it is full, or what is left of it is too short
// for a frame that is to be decoded in one piece. It returns how much there
// is, 0 only with an error.
func (d *Decoder) fill() (n int, err error) {
	if d.out == nil {
		d.out = make([]byte, outSize)
	}
	d.first = 0
	for n < len(d.out) && err == nil {
		if d.inside {
			n, err = d.stream(n)
			continue
		}
		var f frame
		if f, err = d.find(); err != nil {
			return n, d.fault(err)
		}
		if f.whole && f.bound > len(d.out)-n {
			return n, nil
		}
		d.start, d.first, d.silent = d.in.off, n, true
		if f.whole {
			n, err = d.decode(f, n)
		} else {
			err = d.enter(f.header)
		}
	}
	return n, err
}

// open gets a decoder if there is none.
func (d *Decoder) open() (err error) {
	if d.zstd != nil {
		return nil
	}
	if d.zstd, _ = spare.Get().(*zstd.Decoder); d.zstd == nil {
		d.zstd, err = newDecoder()
	}
	return err
}

// enter begins with a frame that is decoded piece by piece.
func (d *Decoder) enter(h header) error {
	d.inside = true
	most := uint64(smallWindow)
	if d.eager {
		most = MaxWindow
	}
	var err error
	if d.body.enter(h, most); d.body.need > smallWindow && d.eager {
		err = d.acquire()
	} else {
		err = d.open()
	}
	if err == nil {
		err = d.zstd.Reset(&d.body)
	}
	return err
}

// decode decodes a whole frame to out[n:] and returns where its output ends.
func (d *Decoder) decode(f frame, n int) (int, error) {
	b, err := d.in.peek(f.size)
	if err != nil {
		return n, d.fault(cut(err))
	}
	if err := d.open(); err != nil {
		return n, err
	}
	p, err := d.zstd.DecodeAll(b[:f.size], d.out[n:n])
	if err != nil {
		return n, d.fault(fmt.Errorf("%w: %v", codec.ErrFormat, err))
	}
	d.in.take(f.size)
	// p is out[n:] itself, unless the decoder had to move it.
	end := n + copy(d.out[n:], p)
	d.note(n, end)
	return end, nil
}

// stream decodes more of the current frame to out[n:] and returns where the
// output ends. It takes back what it can of a frame that turns out wrong.
func (d *Decoder) stream(n int) (int, error) {
	k, err := d.zstd.Read(d.out[n:])
	d.body.given += int64(k)
	d.note(n, n+k)
	n += k
	if err != nil && d.body.err == errGrow {
		if err = d.grow(); err == nil || err == errEnded {
			return n, err
		}
	}
	switch {
	case err == nil:
		return n, nil
	case d.body.err == errKept:
		return d.first, d.fault(fmt.Errorf("%w: %v", codec.ErrFormat, errKept))
	case d.body.err != nil:
		return n, d.fault(d.body.err)
	case err == io.EOF && d.body.ended():
		d.inside = false
		d.release()
		return n, nil
	}
	return d.first, d.fault(fmt.Errorf("%w: %v", codec.ErrFormat, err))
}

// note is told that out[from:to] came from the current frame.
func (d *Decoder) note(from, to int) {
	if !d.silent || from == to {
		return
	}
	d.silent = false
	if d.mark != nil {
		d.mark(d.start, d.pos+int64(from))
	}
}

// fault says where err happened. io.EOF, which is no fault, stays as it is.
func (d *Decoder) fault(err error) error {
	var at *codec.Error
	if err == io.EOF || errors.As(err, &at) {
		return err
	}
	return &codec.Error{In: d.in.off, Err: err}
}
