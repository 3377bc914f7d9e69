// Package decoders starts the decoder of each codec that layers are compressed
// with: at the beginning of a layer, and at a checkpoint.
package decoders

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
	"github.com/imgfs/imgfs/layerindex/internal/zstd"
)

// start starts a decoder at the beginning of a layer. span is the distance of
// checkpoints in bytes of output, 0 for the default.
func start(c layerindex.Codec, src io.Reader, span int64) codec.Indexer {
	switch c {
	case layerindex.Gzip:
		// The other distances keep their proportions to it.
		return gzip.NewIndexer(src, &gzip.Options{SpanOut: span, SpanIn: span / 8, SpanMax: 4 * span})
	case layerindex.Zstd:
		return zstd.NewIndexer(src, &zstd.Options{SpanOut: span})
	}
	return &plain{src: src, buf: make([]byte, 256<<10)}
}

// Resume starts a decoder at a checkpoint; src begins with the byte there. It
// uses the memory of spare, if that is not nil and of the same kind.
func Resume(c layerindex.Codec, src io.Reader, p codec.Checkpoint, spare codec.Decoder) (codec.Decoder, error) {
	switch c {
	case layerindex.Gzip:
		if d, ok := spare.(*gzip.Decoder); ok {
			return d, d.Reset(src, p)
		}
		return gzip.Resume(src, p)
	case layerindex.Zstd:
		return zstd.Resume(src, p)
	}
	return nil, fmt.Errorf("%w: %v has no checkpoints", layerindex.ErrIndex, c)
}

// magics are the first bytes of compressed formats.
var magics = []struct {
	name  string
	bytes []byte
	codec layerindex.Codec
	known bool
}{
	{"gzip", []byte{0x1f, 0x8b}, layerindex.Gzip, true},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, layerindex.Zstd, true},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}, 0, false},
	{"bzip2", []byte("BZh"), 0, false},
	{"lz4", []byte{0x04, 0x22, 0x4d, 0x18}, 0, false},
}

// Start starts the decoder of the codec that the first bytes of a blob show. The
// media type is not asked: docker and containerd go by the bytes as well. span is
// the distance of checkpoints in bytes of output, 0 for the default. An Indexer
// that is an io.Closer must be closed: its memory is shared.
func Start(src io.Reader, span int64) (codec.Indexer, layerindex.Codec, error) {
	r := bufio.NewReaderSize(src, 4096)
	head, err := r.Peek(8)
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	for _, m := range magics {
		if !bytes.HasPrefix(head, m.bytes) {
			continue
		}
		if !m.known {
			return nil, 0, fmt.Errorf("%w: %s is not a compression of layers", layerindex.ErrCompressed, m.name)
		}
		return start(m.codec, r, span), m.codec, nil
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return start(layerindex.Zstd, r, span), layerindex.Zstd, nil // a skippable frame first
	}
	return start(layerindex.Plain, r, span), layerindex.Plain, nil
}

// plain is the decoder of a tar that is not compressed.
type plain struct {
	src io.Reader
	buf []byte
}

func (p *plain) Next() ([]byte, error) {
	n, err := io.ReadFull(p.src, p.buf)
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	return p.buf[:n], err
}

func (p *plain) Checkpoints() []codec.Checkpoint { return nil }
