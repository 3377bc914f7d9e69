package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"

	"github.com/imgfs/imgfs/remote/magic"
)

const (
	// maxMembers and maxName bound what the scan keeps in memory: a small
	// compressed archive can hold any number of headers.
	maxMembers = 1 << 16
	maxName    = 4096
	// maxOtherName bounds the names of members that are no files, which only
	// messages need.
	maxOtherName = 256

	blockSize = 512
)

var (
	// ErrNotArchive: what is opened is no archive of an image: a directory, or a file
	// that does not begin like a tar or has more members than any image.
	ErrNotArchive = errors.New("it is not a tar archive")
	// errEmpty: it begins with the end of one. A file may do so and is a tar
	// without members, but there is no reason to unpack what does.
	errEmpty = fmt.Errorf("%w: it begins with zeros, as the end of one does", ErrNotArchive)
	// errNothing: there is no byte of it.
	errNothing = fmt.Errorf("%w: there is nothing in it", ErrNotArchive)
)

// errTooMany: a tar has more members than any archive of an image.
var errTooMany error = tooMany{}

type tooMany struct{}

func (tooMany) Error() string { return fmt.Sprintf("it has more than %d members", maxMembers) }

func (tooMany) Is(target error) bool { return target == ErrNotArchive }

// checkStart looks at the first block of what should be a tar.
func checkStart(r io.Reader) error {
	var block [blockSize]byte
	n, err := io.ReadFull(r, block[:])
	switch {
	case err == io.EOF:
		return errNothing
	case err == io.ErrUnexpectedEOF:
		return fmt.Errorf("%w: it has %d bytes, less than a header", ErrNotArchive, n)
	case err != nil:
		return err
	case block == [blockSize]byte{}:
		return errEmpty
	case !magic.IsTar(block[:]):
		if format := magic.Of(block[:]); format != (magic.Format{}) {
			return fmt.Errorf("%w: it begins like %s", ErrNotArchive, format)
		}
		return fmt.Errorf("%w: the checksum of its first header is wrong", ErrNotArchive)
	}
	return nil
}

// A scan reads the headers of a tar.
type scan struct {
	members map[string]member
	others  map[string]byte // the types of what is no file, by name
	max     int64           // where every member must end
	err     error           // what it is if one does not

	// file has all bytes that were read, for the maps of sparse members.
	file    io.ReaderAt
	next    int64 // where the headers of the next member begin
	extents int   // of all sparse members
}

// newScan returns a scan of the tar in file, whose members must end at most. The
// error says what it is if one does not.
func newScan(file io.ReaderAt, most int64, err error) *scan {
	return &scan{members: map[string]member{}, others: map[string]byte{}, max: most, err: err, file: file}
}

// scanFile scans a tar. It goes over what its members contain without reading it.
func scanFile(ctx context.Context, file *io.SectionReader) (*scan, error) {
	end := fmt.Errorf("the archive ends at byte %d: %w", file.Size(), io.ErrUnexpectedEOF)
	s := newScan(file, file.Size(), end)
	err := s.run(ctx, file, func() int64 {
		at, _ := file.Seek(0, io.SeekCurrent) // only places before the start are errors
		return at
	})
	return s, err
}

// run reads all headers from r; position tells how far r has been read.
func (s *scan) run(ctx context.Context, r io.Reader, position func() int64) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading it as a tar: %s: %w", s.blamed(), err)
		}
		// tar.Reader reads no further than the header's last block.
		if err := s.add(h, position()); err != nil {
			return fmt.Errorf("reading it as a tar: %w", err)
		}
	}
}

// blamed names the member whose headers cannot be read, as far as it can be told.
func (s *scan) blamed() string {
	header, _, err := ownHeader(s.file, s.next, math.MaxInt64)
	if err != nil || !magic.IsTar(header[:]) {
		return fmt.Sprintf("the member at byte %d", s.next)
	}
	name, _, _ := bytes.Cut(header[:100], []byte{0})
	kind := "member"
	if header[156] == tar.TypeGNUSparse || bytes.Contains(name, []byte("GNUSparseFile.")) {
		kind = "sparse file"
	}
	return fmt.Sprintf("the %s %.200q at byte %d", kind, name, s.next)
}

// add takes down a header whose content begins at off. A member that cannot be
// all there is an error: the file is truncated, or more than may be unpacked.
func (s *scan) add(h *tar.Header, off int64) error {
	m, stored, err := s.member(h, off)
	if err != nil {
		return fmt.Errorf("the sparse file %.200q: %w", h.Name, err)
	}
	if stored > s.max-off {
		return fmt.Errorf("%.200q, %d bytes from byte %d: %w", h.Name, stored, off, s.err)
	}
	s.next = padded(off + stored)
	if len(h.Name) > maxName || len(h.Linkname) > maxName {
		return nil
	}
	if m == (member{}) {
		if len(s.others) < maxMembers && len(h.Name) <= maxOtherName {
			s.others[clean(h.Name)] = h.Typeflag
		}
		return nil
	}
	if s.members[clean(h.Name)] = m; len(s.members) > maxMembers {
		return errTooMany
	}
	return nil
}

// otherTypes are the types of members that are no files, in words.
var otherTypes = map[byte]string{
	tar.TypeDir:   "a directory",
	tar.TypeChar:  "a device",
	tar.TypeBlock: "a device",
	tar.TypeFifo:  "a named pipe",
	'D':           "GNU tar's list of a directory",
	'M':           "the rest of a file of another volume",
	'N':           "GNU tar's list of old names",
	'V':           "the name of a volume",
	'X':           "an extended header of Solaris",
}

// member returns what to keep of a header whose content begins at off, nothing of
// directories and the like, and how many bytes of content there are. Typeflags that
// nobody defined are files, as POSIX and archive/tar have it.
func (s *scan) member(h *tar.Header, off int64) (m member, stored int64, err error) {
	switch h.Typeflag {
	case tar.TypeLink:
		// It is the file that has the name now, and not one that takes it later.
		target := clean(h.Linkname)
		if m, ok := s.members[target]; ok {
			return m, 0, nil
		}
		return member{link: target}, 0, nil
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) {
			return member{link: clean(h.Linkname)}, 0, nil
		}
		return member{link: clean(path.Join(path.Dir(clean(h.Name)), h.Linkname))}, 0, nil
	case tar.TypeXGlobalHeader:
		return member{}, 0, nil
	case tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return member{}, 0, nil
	}
	m, stored = member{off: off, size: h.Size}, h.Size
	if isSparse(h) {
		if m.sparse, stored, err = readSparse(s.file, h, s.next, off); err != nil {
			return member{}, 0, err
		}
		if s.extents += len(m.sparse.extents); s.extents > maxExtents {
			return member{}, 0, fmt.Errorf("with it, sparse files have more than %d extents", maxExtents)
		}
	}
	if _, ok := otherTypes[h.Typeflag]; ok {
		return member{}, stored, nil // it has a body that is passed over
	}
	return m, stored, nil
}
