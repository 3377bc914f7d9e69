package indexfile

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

// Section reads one section into memory, compares it with its checksum and decodes
// it.
func (f *File) Section(kind Kind) ([]byte, error) {
	s, ok := f.Find(kind)
	if !ok {
		return nil, fmt.Errorf("%w: %v is missing", ErrInvalid, kind)
	}
	stored := make([]byte, s.Stored) // bounded by the size of the file
	if err := readFull(f.Src, stored, s.Off); err != nil {
		return nil, Invalid(kind.String(), err)
	}
	if sha256.Sum256(stored) != s.Sum {
		return nil, fmt.Errorf("%w: %v: checksum", ErrInvalid, kind)
	}
	if s.Encoding == Raw {
		return stored, nil
	}
	raw, err := unpackOnce(stored, s.Raw)
	if err != nil {
		return nil, Invalid(kind.String(), err)
	}
	return raw, nil
}

// OpenSection returns a reader of one section, decoded, until ctx ends.
func (f *File) OpenSection(ctx context.Context, kind Kind) (*SectionReader, error) {
	s, ok := f.Find(kind)
	if !ok {
		return nil, fmt.Errorf("%w: %v is missing", ErrInvalid, kind)
	}
	if s.Raw <= smallSection && s.Stored <= smallSection {
		b, err := f.Section(kind)
		if err != nil {
			return nil, err
		}
		return &SectionReader{ctx: ctx, info: s, left: s.Raw, decoded: bytes.NewReader(b)}, nil
	}
	r := &SectionReader{ctx: ctx, sum: sha256.New(), info: s, left: s.Raw}
	r.stored = io.TeeReader(io.NewSectionReader(f.Src, s.Off, s.Stored), r.sum)
	r.decoded = r.stored
	if s.Encoding == Zstd {
		dec, err := zstd.NewReader(r.stored, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, r.wrap(err)
		}
		r.zstd, r.decoded = dec, dec
	}
	return r, nil
}

// A SectionReader reads the decoded bytes of a section. Whether the section has its
// checksum is known when it is closed. It is for one goroutine.
type SectionReader struct {
	ctx     context.Context // of the one call that reads
	info    Section
	sum     hash.Hash // nil if the checksum has been compared
	stored  io.Reader // and hashed
	zstd    *zstd.Decoder
	decoded io.Reader
	left    int64 // decoded bytes
}

func (r *SectionReader) wrap(err error) error {
	return Invalid(r.info.Kind.String(), err)
}

// Len returns how many decoded bytes are left.
func (r *SectionReader) Len() int64 { return r.left }

// Read implements io.Reader.
func (r *SectionReader) Read(p []byte) (int, error) {
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

// Close ends the reading. It returns what is wrong with the section: first its
// checksum, then err, which is what the caller made of the bytes, then that there
// are too many or too few bytes.
func (r *SectionReader) Close(err error) error {
	end, extra := io.EOF, 0
	if err == nil && r.left == 0 {
		var b [1]byte
		extra, end = io.ReadFull(r.decoded, b[:])
	}
	r.Release()
	if sumErr := r.compare(); sumErr != nil {
		return sumErr
	}
	switch {
	case err != nil:
		return err
	case r.left > 0 || extra > 0:
		return r.wrap(errLength(r.info.Raw))
	case end != io.EOF:
		return r.wrap(end)
	}
	return nil
}

// compare reads what is left of the section and compares its checksum.
func (r *SectionReader) compare() error {
	if err := r.ctx.Err(); err != nil || r.sum == nil {
		return err
	}
	if _, err := io.Copy(io.Discard, ctxReader{r.ctx, r.stored}); err != nil {
		return r.wrap(err)
	}
	if [32]byte(r.sum.Sum(nil)) != r.info.Sum {
		return r.wrap(errors.New("checksum"))
	}
	return nil
}

// Release ends the reading of a section that is not read to its end.
func (r *SectionReader) Release() {
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

// CheckSums reads all sections and compares them with their checksums. The error
// wraps ErrInvalid, or is ctx.Err().
func (f *File) CheckSums(ctx context.Context) error {
	for i := range f.Sections {
		if err := f.checkSum(ctx, &f.Sections[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkSum is CheckSums for one section.
func (f *File) checkSum(ctx context.Context, s *Section) error {
	return f.copySection(ctx, io.Discard, s)
}

// copySection writes a section, as it is stored, to w and compares it with its checksum.
func (f *File) copySection(ctx context.Context, w io.Writer, s *Section) error {
	sum := sha256.New()
	src := &sectionSource{ctxReader{ctx, io.NewSectionReader(f.Src, s.Off, s.Stored)}, s.Kind}
	if _, err := io.Copy(io.MultiWriter(sum, w), src); err != nil {
		return err
	}
	if [sha256.Size]byte(sum.Sum(nil)) != s.Sum {
		return fmt.Errorf("%w: %v: checksum", ErrInvalid, s.Kind)
	}
	return nil
}

// A sectionSource says of errors whose they are.
type sectionSource struct {
	ctxReader
	kind Kind
}

func (s *sectionSource) Read(p []byte) (int, error) {
	n, err := s.ctxReader.Read(p)
	if err != nil && err != io.EOF && s.ctx.Err() == nil {
		err = Invalid(s.kind.String(), err)
	}
	return n, err
}
