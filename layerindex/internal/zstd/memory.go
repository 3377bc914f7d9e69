package zstd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// DecodeFrame decodes the first frame in src, which may stand behind skippable ones, to
// dst, and stops when dst is full. It returns how many bytes there are: fewer than
// len(dst) without an error if the frame has no more. It may write anything to dst
// between its length and its capacity.
//
// The frame's blocks must all be in src, while what is behind it is ignored. What
// the frame says of its window costs no memory unless the frame has more output than
// dst has capacity for: then it is decoded like a stream.
func DecodeFrame(dst, src []byte) (int, error) {
	h, frame, err := firstFrame(src)
	if err != nil {
		return 0, err
	}
	fits := h.sized && h.content <= uint64(cap(dst))
	if !h.sized || fits {
		dec, _ := spare.Get().(*zstd.Decoder)
		if dec == nil {
			if dec, err = newDecoder(); err != nil {
				return 0, err
			}
		}
		p, err := dec.DecodeAll(frame, dst[:0])
		spare.Put(dec)
		switch {
		case err == nil:
			// p is dst itself, unless the decoder had to move it.
			return copy(dst, p), nil
		case fits:
			return 0, fmt.Errorf("%w: %v", codec.ErrFormat, err)
		}
	}
	return decodeStart(dst, frame)
}

// decodeStart decodes the first len(dst) bytes of a frame that may have more than dst has
// capacity for.
func decodeStart(dst, frame []byte) (n int, err error) {
	d, err := Resume(bytes.NewReader(frame), codec.Checkpoint{Start: true})
	if err != nil {
		return 0, err
	}
	defer d.Close()
	for n < len(dst) {
		p, err := d.Next()
		n += copy(dst[n:], p)
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// firstFrame returns the first frame in b that is not a skippable one. It reads the
// headers of its blocks, and nothing else of them.
func firstFrame(b []byte) (h header, frame []byte, err error) {
	for len(b) >= 8 && binary.LittleEndian.Uint32(b)&^0xF == skippableMagic {
		n := uint64(binary.LittleEndian.Uint32(b[4:])) + 8
		if n > uint64(len(b)) {
			return h, nil, io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	if len(b) < 5 {
		return h, nil, io.ErrUnexpectedEOF
	}
	if binary.LittleEndian.Uint32(b) != magic {
		return h, nil, fmt.Errorf("%w: no zstd frame here", codec.ErrFormat)
	}
	size := headerSize(b[4])
	if len(b) < size {
		return h, nil, io.ErrUnexpectedEOF
	}
	if h, err = parseHeader(b[:size]); err != nil {
		return h, nil, err
	}
	if err = h.check(MaxWindow); err != nil {
		return h, nil, err
	}
	for last := false; !last; {
		if len(b) < size+blockHeaderSize {
			return h, nil, io.ErrUnexpectedEOF
		}
		blk := parseBlock(b[size:], h.window)
		size += blk.size
		last = blk.last
	}
	if h.checksum {
		size += checksumSize
	}
	if len(b) < size {
		return h, nil, io.ErrUnexpectedEOF
	}
	return h, b[:size], nil
}
