package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
)

const (
	// maxMembers and maxName bound what the scan keeps in memory: a small
	// compressed archive can hold any number of headers.
	maxMembers = 1 << 16
	maxName    = 4096

	blockSize = 512
)

var (
	// errNotArchive: a file does not begin like a tar.
	errNotArchive = errors.New("it is not a tar archive")
	// errEmpty: it begins with the end of one. A file may do so and is a tar
	// without members, but there is no reason to unpack what does.
	errEmpty = fmt.Errorf("%w: it begins with zeros, as the end of one does", errNotArchive)
)

// checkStart looks at the first block of what should be a tar.
func checkStart(r io.Reader) error {
	var block [blockSize]byte
	n, err := io.ReadFull(r, block[:])
	switch {
	case err == io.EOF:
		return errEmpty
	case err == io.ErrUnexpectedEOF:
		return fmt.Errorf("%w: it has %d bytes, less than a header", errNotArchive, n)
	case err != nil:
		return err
	case block == [blockSize]byte{}:
		return errEmpty
	case !isHeader(&block):
		return fmt.Errorf("%w: the checksum of its first header is wrong", errNotArchive)
	}
	return nil
}

// isHeader reports whether a block has a tar header's checksum: the sum of its
// bytes, which some programs take as signed, with the field itself as spaces.
func isHeader(block *[blockSize]byte) bool {
	const field, end = 148, 156
	text := bytes.Trim(block[field:end], " \x00")
	want, err := strconv.ParseInt(string(text), 8, 32)
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, c := range block {
		if field <= i && i < end {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// A scan reads the headers of a tar.
type scan struct {
	members map[string]member
	max     int64 // where every member must end
	err     error // what it is if one does not
}

// scanFile returns the members of a tar. It goes over what they contain without
// reading it.
func scanFile(ctx context.Context, file *io.SectionReader) (map[string]member, error) {
	end := fmt.Errorf("the archive ends at byte %d: %w", file.Size(), io.ErrUnexpectedEOF)
	s := scan{members: map[string]member{}, max: file.Size(), err: end}
	err := s.run(ctx, file, func() int64 {
		at, _ := file.Seek(0, io.SeekCurrent) // only places before the start are errors
		return at
	})
	return s.members, err
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
			return fmt.Errorf("reading it as a tar: %w", err)
		}
		// tar.Reader reads no further than the header's last block.
		if err := s.add(h, position()); err != nil {
			return fmt.Errorf("reading it as a tar: %w", err)
		}
	}
}

// add takes down a header whose content begins at off. A member that cannot be
// all there is an error: the file is truncated, or more than may be unpacked.
func (s *scan) add(h *tar.Header, off int64) error {
	m, ok := newMember(h, off)
	if !ok {
		return nil
	}
	if m.size > s.max-off {
		return fmt.Errorf("%.200q, %d bytes from byte %d: %w", h.Name, m.size, off, s.err)
	}
	if s.members[clean(h.Name)] = m; len(s.members) > maxMembers {
		return fmt.Errorf("it has more than %d members", maxMembers)
	}
	return nil
}

// newMember returns what to keep of a header whose content begins at off. It
// leaves out directories and the like, and sparse files: their content is
// not a section of the archive.
func newMember(h *tar.Header, off int64) (m member, ok bool) {
	if len(h.Name) > maxName || len(h.Linkname) > maxName {
		return member{}, false
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
			return member{}, false
		}
		return member{off: off, size: h.Size}, true
	case tar.TypeLink:
		return member{link: clean(h.Linkname)}, true
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) {
			return member{link: clean(h.Linkname)}, true
		}
		return member{link: clean(path.Join(path.Dir(clean(h.Name)), h.Linkname))}, true
	}
	return member{}, false
}
