package indexfile

import (
	"crypto/sha256"
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

// Open returns the file in the first size bytes of src. It reads and checks the
// header only. The error wraps ErrInvalid.
func Open(src io.ReaderAt, size int64) (File, error) {
	h, err := readHeader(src, size)
	if err != nil {
		return File{}, err
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

// Assemble makes a file in memory of its parts, with their pieces before them. The
// header has no sections yet.
func Assemble(h Header, parts []Part) (File, error) {
	h.Version = Version
	var sums pieceSums
	for _, p := range parts {
		for _, b := range p.Stored.Pieces {
			sums.Write(b)
		}
	}
	all := append([]Part{rawPart(Pieces, sums.finish())}, parts...)
	off := int64(HeaderLen(len(all)))
	var file pieces
	for _, p := range all {
		sum := sha256.New()
		for _, b := range p.Stored.Pieces {
			sum.Write(b)
		}
		h.Sections = append(h.Sections, Section{
			Kind: p.Kind, Encoding: p.Encoding, Off: off,
			Stored: p.Stored.Size, Raw: p.Raw, Sum: [32]byte(sum.Sum(nil)),
		})
		file.list = append(file.list, p.Stored.Pieces...)
		off += p.Stored.Size
	}
	file.list = slices.Insert(file.list, 0, h.Append(nil))
	file.index()
	return Open(&file, off)
}

// rawPart is a part that is stored as it is.
func rawPart(kind Kind, b []byte) Part {
	return Part{Kind: kind, Encoding: Raw, Raw: int64(len(b)), Stored: column.Of(b)}
}

// pieces are a file in memory that is not in one piece.
type pieces struct {
	list [][]byte
	ends []int64 // of each
}

// index notes where the pieces are.
func (p *pieces) index() {
	end := int64(0)
	for _, b := range p.list {
		end += int64(len(b))
		p.ends = append(p.ends, end)
	}
}

// ReadAt implements io.ReaderAt.
func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	i, _ := slices.BinarySearch(p.ends, off+1)
	n := 0
	for ; i < len(p.list) && n < len(b); i++ {
		from := off + int64(n) - (p.ends[i] - int64(len(p.list[i])))
		n += copy(b[n:], p.list[i][from:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
