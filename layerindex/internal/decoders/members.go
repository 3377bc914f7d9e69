package decoders

import (
	"bytes"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
	"github.com/imgfs/imgfs/layerindex/internal/zstd"
)

// Members decode gzip members and zstd frames that are in memory, one after the other
// with the same memory. The zero Members are ready. They are for one goroutine at a
// time.
type Members struct {
	gzip *gzip.Decoder
	src  bytes.Reader
}

// Decode decodes the member or frame that src begins with to dst, and stops when dst is
// full. It returns how many bytes there are: fewer than len(dst) without an error
// if there are no more. It may write anything to dst between its length and its
// capacity.
func (m *Members) Decode(c layerindex.Codec, dst, src []byte) (n int, err error) {
	if c == layerindex.Zstd {
		return zstd.DecodeFrame(dst, src)
	}
	m.src.Reset(src)
	defer m.src.Reset(nil)
	dec, err := m.Resume(c, &m.src, codec.Checkpoint{Start: true})
	if err != nil {
		return 0, err
	}
	for n < len(dst) {
		p, err := dec.Next()
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

// Resume starts a decoder at a checkpoint; src begins with the byte there. The decoder
// must not be used after the next call of a method. One that is an io.Closer must be
// closed.
func (m *Members) Resume(c layerindex.Codec, src io.Reader, p codec.Checkpoint) (codec.Decoder, error) {
	var spare codec.Decoder
	if m.gzip != nil {
		spare = m.gzip
	}
	dec, err := Resume(c, src, p, spare)
	if d, ok := dec.(*gzip.Decoder); ok {
		m.gzip = d
	}
	return dec, err
}
