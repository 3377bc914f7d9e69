package indexfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"

	"github.com/imgfs/imgfs/layerindex/internal/column"
)

// A File is an index file, or one in memory. It is immutable and safe for
// concurrent use.
type File struct {
	Header
	Src  io.ReaderAt
	Size int64 // in bytes
}

// Open returns the file in the first size bytes of src, or in as many as the header says
// if size is negative. It reads and checks the header only. The error wraps ErrInvalid.
func Open(src io.ReaderAt, size int64) (File, error) {
	h, err := readHeader(src, size)
	if err != nil {
		return File{}, err
	}
	if size < 0 {
		size = h.end()
	}
	return File{*h, src, size}, nil
}

// HeaderSum returns the checksum that the header ends with. It pins the file.
func (f *File) HeaderSum() [sha256.Size]byte {
	head := f.Append(nil)
	return [sha256.Size]byte(head[len(head)-sha256.Size:])
}

// WriteTo writes the file to w.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(f.Src, 0, f.Size))
}

// A Part is a section as it goes into a file.
type Part struct {
	Kind     Kind
	Encoding uint32
	Raw      int64 // decoded length in bytes
	Stored   column.Column
}

// Assemble makes a file in memory of its parts, in their order. The header has no
// sections yet.
func Assemble(h Header, parts []Part) (File, error) {
	var body joined
	for _, p := range parts {
		sum := sha256.New()
		for _, b := range p.Stored.Pieces {
			sum.Write(b)
			body.add(bytes.NewReader(b), int64(len(b)))
		}
		h.Sections = append(h.Sections, Section{
			Kind: p.Kind, Encoding: p.Encoding, Stored: p.Stored.Size, Raw: p.Raw, Sum: [sha256.Size]byte(sum.Sum(nil)),
		})
	}
	return assemble(h, &body)
}

// assemble makes a file of a header and what its sections hold. It puts the sums of the
// pieces before them, and the offsets in.
func assemble(h Header, body *joined) (File, error) {
	h.Version = Version
	pieces := newPieceSummer()
	if _, err := io.Copy(pieces, io.NewSectionReader(body, 0, body.size())); err != nil {
		return File{}, err
	}
	sums := pieces.finish()
	first := Section{Kind: PieceSums, Encoding: Raw, Stored: int64(len(sums)), Raw: int64(len(sums)), Sum: sha256.Sum256(sums)}
	h.Sections = slices.Insert(slices.Clone(h.Sections), 0, first)
	off := int64(HeaderLen(len(h.Sections)))
	for i := range h.Sections {
		h.Sections[i].Off = off
		off += h.Sections[i].Stored
	}
	var file joined
	for _, b := range [][]byte{h.Append(nil), sums} {
		file.add(bytes.NewReader(b), int64(len(b)))
	}
	file.add(body, body.size())
	return Open(&file, off)
}

// Published returns the file without its digests of contents, with the sums of their
// pieces instead. It reads this file, as it does when it is read later.
func (f *File) Published(ctx context.Context) (File, error) {
	h, body := f.Header, &joined{}
	h.Sections = nil
	for _, kind := range [...]Kind{Entries, Spans, Chunks, Proofs, First, Windows} {
		s, ok := f.Find(kind)
		if !ok {
			continue
		}
		if err := f.checkSum(ctx, &s); err != nil {
			return File{}, err
		}
		h.Sections = append(h.Sections, s)
		body.add(io.NewSectionReader(f.Src, s.Off, s.Stored), s.Stored)
	}
	if s, ok := f.Find(Digests); ok {
		pieces := newPieceSummer()
		if err := f.copySection(ctx, pieces, &s); err != nil {
			return File{}, err
		}
		b := append(binary.LittleEndian.AppendUint64(nil, uint64(pieces.all)), pieces.finish()...)
		h.Sections = append(h.Sections, Section{Kind: DigestPieces, Encoding: Raw, Stored: int64(len(b)), Raw: int64(len(b)), Sum: sha256.Sum256(b)})
		body.add(bytes.NewReader(b), int64(len(b)))
	}
	return assemble(h, body)
}

// WriteDigests writes the digests of contents to w, as they are in a file of their own.
func (f *File) WriteDigests(ctx context.Context, w io.Writer) error {
	s, ok := f.Find(Digests)
	if !ok {
		return nil
	}
	return f.copySection(ctx, w, &s)
}

// joined are several sources that are read as one, one behind the other.
type joined struct {
	list []io.ReaderAt
	ends []int64 // of each
}

func (j *joined) add(r io.ReaderAt, size int64) {
	if size > 0 {
		j.list, j.ends = append(j.list, r), append(j.ends, j.size()+size)
	}
}

func (j *joined) size() int64 {
	if len(j.ends) == 0 {
		return 0
	}
	return j.ends[len(j.ends)-1]
}

// ReadAt implements io.ReaderAt.
func (j *joined) ReadAt(b []byte, off int64) (int, error) {
	i, _ := slices.BinarySearch(j.ends, off+1)
	n := 0
	for ; i < len(j.list) && n < len(b); i++ {
		begin := int64(0)
		if i > 0 {
			begin = j.ends[i-1]
		}
		at := off + int64(n)
		part := b[n:min(int64(len(b)), j.ends[i]-off)]
		if err := readFull(j.list[i], part, at-begin); err != nil {
			return n, err
		}
		n += len(part)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
