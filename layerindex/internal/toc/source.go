package toc

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/decoders"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

const (
	// MaxText is how many bytes a TOC or a tar-split may decode to, as podman has it.
	MaxText = 150 << 20
	// maxStored is how many bytes of the blob either may take. What is in it are
	// digests and names: those of 150 MiB of text take less.
	maxStored = 64 << 20
	// ctxSteps is how many entries pass between two looks at the context.
	ctxSteps = 1 << 10
)

// A Blob is the compressed layer, of which nothing has to be checked before.
type Blob interface {
	// ReadAt is like io.ReaderAt with a context.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// Size returns the length of the blob in bytes.
	Size() int64
}

// CheckLayer refuses a layer that no index can be of.
func CheckLayer(l layerindex.Layer, blob Blob) error {
	for _, d := range []digest.Digest{l.Digest, l.DiffID} {
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return fmt.Errorf("%w: %q is not a sha256 digest, the only kind supported", ErrNone, d)
		}
	}
	if l.Size < 0 || l.Size > layerindex.MaxSize || l.Size != blob.Size() {
		return fmt.Errorf("%w: a blob of %d bytes, in the manifest %d", layerindex.ErrIndex, blob.Size(), l.Size)
	}
	return nil
}

// ReadRange returns the bytes of a blob from off to end. It counts them in the budget,
// which the caller gives back. The error wraps layerindex.ErrIndex if that is no range or
// too long a one.
func ReadRange(ctx context.Context, blob Blob, budget *layerindex.Budget, off, end int64) ([]byte, error) {
	switch {
	case off < 0 || end < off || end > blob.Size():
		return nil, fmt.Errorf("%w: bytes %d to %d of a blob of %d", layerindex.ErrIndex, off, end, blob.Size())
	case end-off > maxStored:
		return nil, fmt.Errorf("%w: %d bytes of the blob, more than the %d that it may have", layerindex.ErrIndex, end-off, maxStored)
	}
	if err := budget.Take(end - off); err != nil {
		return nil, err
	}
	p := make([]byte, end-off)
	if n, err := blob.ReadAt(ctx, p, off); n < len(p) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return p, nil
}

// A Text reads what compressed bytes decode to. It must be closed.
type Text struct {
	ctx   context.Context
	dec   codec.Decoder
	piece []byte
	most  int64 // bytes that there may be
	n     int64 // that there were
	err   error
}

// NewText returns a Text of gzip members or zstd frames. It fails at the byte behind
// the first most. Of those of zstd frames with a large window one at a time can be read
// in a process: who reads one must not wait for another.
func NewText(ctx context.Context, c layerindex.Codec, stored []byte, most int64) (*Text, error) {
	src := &source{ctx: ctx}
	src.Reset(stored)
	dec, err := decoders.Resume(c, src, codec.Checkpoint{Start: true}, nil)
	if err != nil {
		return nil, err
	}
	return &Text{ctx: ctx, dec: dec, most: most}, nil
}

// A source ends a wait for the memory of a decoder, which looks for Done.
type source struct {
	bytes.Reader
	ctx context.Context
}

func (s *source) Done() <-chan struct{} { return s.ctx.Done() }

// sideWindow is the largest window of a frame that a side Text decodes: what
// klauspost/compress writes at its best level.
const sideWindow = 32 << 20

// NewSideText returns a Text of zstd frames that can be read while another one is. It
// fails at a frame with a window of more than 32 MiB.
func NewSideText(ctx context.Context, stored []byte, most int64) (*Text, error) {
	r, err := zstd.NewReader(bytes.NewReader(stored), zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(sideWindow))
	if err != nil {
		return nil, err
	}
	return &Text{ctx: ctx, dec: &side{r: r, buf: make([]byte, 64<<10)}, most: most}, nil
}

// side is the decoder of a side Text.
type side struct {
	r   *zstd.Decoder
	buf []byte
}

func (s *side) Next() ([]byte, error) {
	n, err := s.r.Read(s.buf)
	return s.buf[:n], err
}

func (s *side) Close() error {
	s.r.Close()
	return nil
}

// Read implements io.Reader. Errors wrap layerindex.ErrIndex or are that of the context.
func (t *Text) Read(p []byte) (int, error) {
	for len(t.piece) == 0 {
		if t.err != nil {
			return 0, t.err
		}
		if t.err = t.ctx.Err(); t.err != nil {
			return 0, t.err
		}
		t.piece, t.err = t.dec.Next()
		switch {
		case t.err == nil || t.err == io.EOF:
		case t.ctx.Err() != nil:
			t.err = t.ctx.Err() // it waited for memory
		default:
			t.err = fmt.Errorf("%w: %w", layerindex.ErrIndex, t.err)
		}
		if t.n += int64(len(t.piece)); t.n > t.most {
			t.piece, t.err = nil, fmt.Errorf("%w: it decodes to more than the %d bytes that it may have", layerindex.ErrIndex, t.most)
		}
	}
	n := copy(p, t.piece)
	t.piece = t.piece[n:]
	return n, nil
}

// Close gives back the memory of the decoder.
func (t *Text) Close() error {
	if c, ok := t.dec.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Each calls add with each entry of a TOC up to its end.
func Each(ctx context.Context, r *Reader, add func(*Entry) error) error {
	for n := 0; ; n++ {
		if n%ctxSteps == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = add(e)
		}
		if err != nil {
			return err
		}
	}
}
