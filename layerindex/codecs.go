package layerindex

import (
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
	"github.com/imgfs/imgfs/layerindex/internal/zstd"
)

// openIndexer starts a decoder at the beginning of a layer. span is the
// distance of checkpoints in bytes of output, 0 for the default.
func openIndexer(c Codec, src io.Reader, span int64) codec.Indexer {
	switch c {
	case Gzip:
		// The other distances keep their proportions to it.
		return gzip.NewIndexer(src, &gzip.Options{SpanOut: span, SpanIn: span / 8, SpanMax: 4 * span})
	case Zstd:
		return zstd.NewIndexer(src, &zstd.Options{SpanOut: span})
	}
	return &plain{src: src, buf: make([]byte, 256<<10)}
}

// resume starts a decoder at a checkpoint; src begins with the byte there. It
// uses the memory of spare, if that is not nil and of the same kind.
func resume(c Codec, src io.Reader, p codec.Checkpoint, spare codec.Decoder) (codec.Decoder, error) {
	switch c {
	case Gzip:
		if d, ok := spare.(*gzip.Decoder); ok {
			return d, d.Reset(src, p)
		}
		return gzip.Resume(src, p)
	case Zstd:
		return zstd.Resume(src, p)
	}
	return nil, fmt.Errorf("%w: %v has no checkpoints", ErrIndex, c)
}

// plain is the decoder of what is not compressed.
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
