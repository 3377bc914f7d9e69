package zstd

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// Frame and block headers are those of RFC 8878, section 3.1.
const (
	magic          = 0xFD2FB528
	skippableMagic = 0x184D2A50 // with any low four bits

	minWindow = 1 << 10
	maxBlock  = 128 << 10 // output of a block

	blockHeaderSize = 3
	checksumSize    = 4
)

// A header is a frame's header, as far as it matters here.
type header struct {
	size     int    // of the header itself, magic included
	window   uint64 // what the frame asks the decoder to keep
	content  uint64 // length of the output, if sized
	sized    bool
	dict     uint32 // 0: none
	checksum bool
}

// A frame is the frame that comes next.
type frame struct {
	header
	// whole says that all of the frame is in the buffer, that it is size
	// bytes long, and gives at most bound bytes of output, or is wrong.
	whole       bool
	size, bound int
}

// A block is what a block's header says.
type block struct {
	last  bool
	size  int // in the stream, header included
	bound int // the most output that it can give
}

// find goes past skippable frames to the start of the next other frame, and
// looks at it. It returns io.EOF at the end of the stream.
func (d *Decoder) find() (frame, error) {
	for {
		b, err := d.in.peek(8)
		if len(b) == 0 && err == io.EOF && d.any {
			return frame{}, io.EOF
		}
		if len(b) < 4 {
			return frame{}, cut(err)
		}
		switch m := binary.LittleEndian.Uint32(b); {
		case m == magic:
			d.any = true
			return d.look()
		case m&^0xF != skippableMagic:
			return frame{}, fmt.Errorf("%w: no zstd frame here", codec.ErrFormat)
		case len(b) < 8:
			return frame{}, cut(err)
		}
		d.any = true
		if err := d.in.skip(8 + int64(binary.LittleEndian.Uint32(b[4:]))); err != nil {
			return frame{}, cut(err)
		}
	}
}

// look reads the header of the frame that begins here and finds out whether
// it can be decoded in one piece.
func (d *Decoder) look() (frame, error) {
	b, err := d.in.peek(5)
	if len(b) < 5 {
		return frame{}, cut(err)
	}
	size := headerSize(b[4])
	if b, err = d.in.peek(size); len(b) < size {
		return frame{}, cut(err)
	}
	h, err := parseHeader(b[:size])
	if err != nil {
		return frame{}, err
	}
	if err := h.check(d.window); err != nil {
		return frame{}, err
	}
	return d.in.measure(h), nil
}

// check refuses a frame that needs a dictionary, or a window of more than most bytes.
func (h header) check(most uint64) error {
	if h.dict != 0 {
		return fmt.Errorf("%w: frame needs dictionary %d", codec.ErrFormat, h.dict)
	}
	if h.window > most {
		return fmt.Errorf("%w: frame needs a window of %d bytes, more than %d", codec.ErrFormat, h.window, most)
	}
	return nil
}

// measure walks the blocks of the frame that begins here as far as the buffer
// reaches. It reports no faults: those are for the decoder of the frame.
func (in *input) measure(h header) frame {
	f := frame{header: h, size: h.size}
	if h.sized && h.content > outSize {
		return f
	}
	for last := false; !last; {
		b, _ := in.peek(f.size + blockHeaderSize)
		if len(b) < f.size+blockHeaderSize {
			return f
		}
		blk := parseBlock(b[f.size:], h.window)
		f.size += blk.size
		f.bound += blk.bound
		if last = blk.last; f.bound > outSize && !h.sized {
			return f
		}
	}
	if h.sized {
		f.bound = int(h.content)
	}
	if h.checksum {
		f.size += checksumSize
	}
	b, _ := in.peek(f.size)
	f.whole = len(b) >= f.size
	return f
}

// headerSize returns the length of a frame's header by its descriptor byte.
func headerSize(descriptor byte) int {
	n := 5 + [4]int{0, 1, 2, 4}[descriptor&3] + [4]int{0, 2, 4, 8}[descriptor>>6]
	switch single := descriptor&0x20 != 0; {
	case !single:
		n++ // the window
	case descriptor>>6 == 0:
		n++ // content size of one byte
	}
	return n
}

// parseHeader reads a frame's header, of which b holds exactly all.
func parseHeader(b []byte) (header, error) {
	h := header{size: len(b)}
	descriptor := b[4]
	if descriptor&8 != 0 {
		return h, fmt.Errorf("%w: reserved bit in a frame's header", codec.ErrFormat)
	}
	h.checksum = descriptor&4 != 0
	single := descriptor&0x20 != 0
	b = b[5:]
	if !single {
		base := uint64(1) << (10 + b[0]>>3)
		h.window = base + base/8*uint64(b[0]&7)
		b = b[1:]
	}
	dict := [4]int{0, 1, 2, 4}[descriptor&3]
	h.dict = uint32(littleEndian(b[:dict]))
	b = b[dict:]
	h.sized = len(b) > 0
	h.content = littleEndian(b)
	if len(b) == 2 {
		h.content += 256
	}
	if single {
		h.window = max(h.content, minWindow)
	}
	return h, nil
}

// parseBlock reads a block's header at the start of b.
func parseBlock(b []byte, window uint64) block {
	v := int(littleEndian(b[:blockHeaderSize]))
	n := v >> 3
	blk := block{last: v&1 != 0, size: blockHeaderSize + n, bound: n}
	switch v >> 1 & 3 {
	case 1: // one byte, n times
		blk.size = blockHeaderSize + 1
	case 2: // compressed
		blk.bound = int(min(window, maxBlock))
	}
	return blk
}

func littleEndian(b []byte) (v uint64) {
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v
}
