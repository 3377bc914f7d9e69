package inflate

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

const (
	// inSize is how much compressed data is held and read at once.
	inSize = 256 << 10
	inMask = inSize - 1
	// inSlack lets any load begin before the end of the data, and a whole
	// block header, which has at most 562 bytes, be decoded behind it.
	inSlack = 1 << 10
	// headerSize is how much input there should be before a block header is
	// decoded, unless the input ends.
	headerSize = 600
)

var errBadRead = errors.New("reader returned an impossible count")

// input is a buffer over the compressed stream. The next bit is bit number bit
// of buf[pos].
type input struct {
	src  io.Reader
	base int64 // offset in the stream of buf[0]
	pos  uint
	bit  uint // 0 to 7
	end  uint // of what has been read: at most inSize
	err  error
	buf  [inSize + inSlack]byte
}

// reset starts at byte off of the stream, which is where src is.
func (in *input) reset(src io.Reader, off int64) {
	in.src, in.base, in.err = src, off, nil
	in.pos, in.bit, in.end = 0, 0, 0
}

// short tells whether there are fewer than n bytes and there may be more.
func (in *input) short(n uint) bool { return in.end-in.pos < n && in.err == nil }

// fill reads until there are n bytes, at most inSize, or the source has ended.
// At its end the data is followed by zeros, so that loads behind it have a
// defined value.
func (in *input) fill(n uint) {
	if !in.short(n) {
		return
	}
	copy(in.buf[:], in.buf[in.pos:in.end])
	in.base += int64(in.pos)
	in.end -= in.pos
	in.pos = 0
	for idle := 0; in.end < n && in.err == nil; {
		room := in.buf[in.end:inSize]
		m, err := in.src.Read(room)
		switch {
		case m < 0 || m > len(room):
			m, err = 0, errBadRead
		case m > 0:
			idle = 0
		case err == nil:
			if idle++; idle == 100 {
				err = io.ErrNoProgress
			}
		}
		in.end += uint(m)
		in.err = err
	}
	if in.err != nil {
		clear(in.buf[in.end:][:inSlack])
	}
}

// load returns the 57 or more bits from bit number at, which counts from the
// start of the buffer.
func (in *input) load(at uint) uint64 {
	i := at >> 3
	if i > uint(len(in.buf)-8) {
		return 0
	}
	return binary.LittleEndian.Uint64(in.buf[i:i+8]) >> (at & 7)
}

// at returns the position in bits from the start of the buffer.
func (in *input) at() uint { return in.pos<<3 + in.bit }

// setAt sets what at returns. It fails if that is behind the end.
func (in *input) setAt(at uint) error {
	if at > in.end<<3 {
		return in.endError()
	}
	in.pos, in.bit = at>>3, at&7
	return nil
}

// align goes to the next byte boundary.
func (in *input) align() {
	if in.bit != 0 {
		in.pos++
		in.bit = 0
	}
}

// skip goes n bits forward. Where the source can seek it does not read what is
// in between.
func (in *input) skip(n int64) error {
	n += int64(in.bit)
	held := int64(in.end - in.pos)
	if n>>3 > held {
		rest := n>>3 - held
		in.base += int64(in.end) + rest
		in.pos, in.bit, in.end = 0, 0, 0
		if in.err == nil {
			in.err = discard(in.src, rest)
		}
		if in.err != nil {
			return in.endError()
		}
		n &= 7
	}
	in.pos += uint(n >> 3)
	in.bit = uint(n & 7)
	if in.bit != 0 {
		in.fill(1)
	}
	return in.setAt(in.at())
}

func discard(src io.Reader, n int64) error {
	if s, ok := src.(io.Seeker); ok && n > inSize {
		_, err := s.Seek(n, io.SeekCurrent)
		return err
	}
	_, err := io.CopyN(io.Discard, src, n)
	return err
}

// drain drops what is left.
func (in *input) drain() error {
	for in.err == nil {
		in.pos, in.bit = in.end, 0
		in.fill(1)
	}
	in.pos, in.bit = in.end, 0
	if in.err == io.EOF {
		return nil
	}
	return in.endError()
}

// endError is the error of a decoder that needs more input than there is.
func (in *input) endError() error {
	err := in.err
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &codec.Error{In: in.base + int64(in.end), Err: err}
}

// fault is the error for damaged input at the current position.
func (in *input) fault(err error) error {
	return &codec.Error{In: in.base + int64(in.pos), Err: err}
}
