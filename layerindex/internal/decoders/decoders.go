// Package decoders starts the decoder of each codec that layers are compressed
// with: at the beginning of a layer, and at a checkpoint.
package decoders

import (
	"bufio"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
	"github.com/imgfs/imgfs/layerindex/internal/zstd"
	"github.com/imgfs/imgfs/remote/magic"
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

// tarHeader is how many bytes tell whether a blob is a tar.
const tarHeader = 512

// Start starts the decoder of the codec that the first bytes of a blob show. The
// media type is not asked: docker and containerd go by the bytes as well. What
// begins with the header of a tar is one, whatever its first name looks like. span is
// the distance of checkpoints in bytes of output, 0 for the default. An Indexer
// that is an io.Closer must be closed: its memory is shared.
func Start(src io.Reader, span int64) (codec.Indexer, layerindex.Codec, error) {
	r := bufio.NewReaderSize(src, 4096)
	head, err := r.Peek(tarHeader)
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	c := layerindex.Plain
	if format := magic.Of(head); format.Compression && !magic.IsTar(head) {
		switch format.Name {
		case "gzip":
			c = layerindex.Gzip
		case "zstd":
			c = layerindex.Zstd
		default:
			return nil, 0, fmt.Errorf("%w: %s is not a compression of layers", layerindex.ErrCompressed, format.Name)
		}
	}
	return start(c, r, span), c, nil
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
