package layerindex

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// section reads one section, checks it and decodes it.
func (x *Index) section(kind sectionKind) ([]byte, error) {
	s, ok := x.head.find(kind)
	if !ok {
		return nil, fmt.Errorf("%w: section %d is missing", ErrIndex, kind)
	}
	stored := make([]byte, s.stored) // bounded by the size of the file
	if err := readFull(x.src, stored, s.off); err != nil {
		return nil, fmt.Errorf("%w: section %d: %w", ErrIndex, kind, err)
	}
	if sha256.Sum256(stored) != s.sum {
		return nil, fmt.Errorf("%w: section %d: checksum", ErrIndex, kind)
	}
	if s.encoding == encodingRaw {
		return stored, nil
	}
	raw, err := unpackOnce(stored, s.raw)
	if err != nil {
		return nil, fmt.Errorf("%w: section %d: %w", ErrIndex, kind, err)
	}
	return raw, nil
}

// openSection returns a reader of one section, decoded.
func (x *Index) openSection(ctx context.Context, kind sectionKind) (*sectionReader, error) {
	s, ok := x.head.find(kind)
	if !ok {
		return nil, fmt.Errorf("%w: section %d is missing", ErrIndex, kind)
	}
	if s.raw <= smallSection && s.stored <= smallSection {
		b, err := x.section(kind)
		if err != nil {
			return nil, err
		}
		return &sectionReader{ctx: ctx, info: s, left: s.raw, decoded: bytes.NewReader(b)}, nil
	}
	r := &sectionReader{ctx: ctx, sum: sha256.New(), info: s, left: s.raw}
	r.stored = io.TeeReader(io.NewSectionReader(x.src, s.off, s.stored), r.sum)
	r.decoded = r.stored
	if s.encoding == encodingZstd {
		dec, err := zstd.NewReader(r.stored, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, r.wrap(err)
		}
		r.zstd, r.decoded = dec, dec
	}
	return r, nil
}

// A sectionReader reads the decoded bytes of a section. Whether they have their
// checksum is known when it is closed.
type sectionReader struct {
	ctx     context.Context // of the one call that reads
	info    sectionInfo
	sum     hash.Hash // nil if the checksum has been compared
	stored  io.Reader // and hashed
	zstd    *zstd.Decoder
	decoded io.Reader
	left    int64 // decoded bytes
}

func (r *sectionReader) wrap(err error) error {
	return fmt.Errorf("%w: section %d: %w", ErrIndex, r.info.kind, err)
}

func (r *sectionReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.decoded.Read(p[:min(int64(len(p)), r.left)])
	if r.left -= int64(n); r.left > 0 && err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// close returns what is wrong with the section: its checksum, or err, which is
// what was made of its bytes, or that there are too many.
func (r *sectionReader) close(err error) error {
	end, extra := io.EOF, 0
	if err == nil && r.left == 0 {
		var b [1]byte
		extra, end = io.ReadFull(r.decoded, b[:])
	}
	r.release()
	if sumErr := r.compare(); sumErr != nil {
		return sumErr
	}
	switch {
	case err != nil:
		return err
	case r.left > 0 || extra > 0:
		return r.wrap(errLength(r.info.raw))
	case end != io.EOF:
		return r.wrap(end)
	}
	return nil
}

// compare reads what is left of the section and compares its checksum.
func (r *sectionReader) compare() error {
	if err := r.ctx.Err(); err != nil || r.sum == nil {
		return err
	}
	if _, err := io.Copy(io.Discard, ctxReader{r.ctx, r.stored}); err != nil {
		return r.wrap(err)
	}
	if [32]byte(r.sum.Sum(nil)) != r.info.sum {
		return r.wrap(errors.New("checksum"))
	}
	return nil
}

func (r *sectionReader) release() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}

// A ctxReader reads until its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// CheckSums reads all parts of the index and compares them with their checksums.
// The error wraps ErrIndex, or is ctx.Err().
func (x *Index) CheckSums(ctx context.Context) error {
	sum := sha256.New()
	for _, s := range x.head.sections {
		sum.Reset()
		_, err := io.Copy(sum, ctxReader{ctx, io.NewSectionReader(x.src, s.off, s.stored)})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%w: section %d: %w", ErrIndex, s.kind, err)
		}
		if [32]byte(sum.Sum(nil)) != s.sum {
			return fmt.Errorf("%w: section %d: checksum", ErrIndex, s.kind)
		}
	}
	return nil
}
