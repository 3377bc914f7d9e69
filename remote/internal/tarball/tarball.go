// Package tarball gives random access to the members of a tar file that
// holds an image: one scan of the headers, then a section of the file for
// each member.
//
// A tar has no list of its members and a compressed one no random access at
// all, so a compressed file, or one that is no regular file (a pipe), is
// first unpacked into a temporary file, which has no name and goes away with
// the process.
//
//	a, err := tarball.Open(ctx, "image.tar")
//	r, err := a.Member("manifest.json")
//
// Of members with the same name the last one counts, as for tar -x. Names
// are cleaned and rooted in the archive: "./a", "/a" and "../a" are "a".
// Symbolic and hard links to members are followed; docker save once wrote
// repeated layers so.
package tarball

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

const (
	// maxLinks is how many links in a row are followed.
	maxLinks = 16
	// maxMembers and maxName bound what the scan keeps in memory: a small
	// compressed archive can hold any number of headers.
	maxMembers = 1 << 16
	maxName    = 4096
)

// An Archive is an open tar file. It is safe for concurrent use.
type Archive struct {
	file    *os.File
	members map[string]member
}

// A member is what the scan keeps of one: where its content is in the file,
// or the name of the member that it is a link to.
type member struct {
	off, size int64
	link      string
}

// Open opens the tar file of that name, unpacks it if it is compressed, and
// scans its headers. The temporary file is in $TMPDIR, by default /var/tmp:
// images are too large for a /tmp in memory. Errors do not repeat the name,
// except for an *fs.PathError.
func Open(ctx context.Context, name string) (*Archive, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	plain, err := unpack(ctx, file)
	if plain != file {
		file.Close()
	}
	if err != nil {
		return nil, err
	}
	a := &Archive{file: plain, members: make(map[string]member)}
	if err := a.scan(ctx); err != nil {
		plain.Close()
		return nil, fmt.Errorf("reading it as a tar: %w", err)
	}
	return a, nil
}

// Close closes the file. Members cannot be read any more.
func (a *Archive) Close() error {
	return a.file.Close()
}

// unpack returns file itself if it is a plain, regular file, and else a
// temporary file with the unpacked content.
func unpack(ctx context.Context, file *os.File) (*os.File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("it is a directory, not an archive")
	}
	r, compressed, err := Decompress(ctx, file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if !compressed && info.Mode().IsRegular() {
		return file, nil
	}
	temp, err := os.CreateTemp(tempDir(), "imgfs-archive-*")
	if err != nil {
		return nil, err
	}
	// Without a name it cannot be left behind.
	err = os.Remove(temp.Name())
	if err == nil {
		_, err = io.Copy(temp, r)
	}
	if err != nil {
		temp.Close()
		return nil, fmt.Errorf("unpacking it to a temporary file: %w", err)
	}
	return temp, nil
}

func tempDir() string {
	const large = "/var/tmp"
	if os.Getenv("TMPDIR") == "" {
		if info, err := os.Stat(large); err == nil && info.IsDir() {
			return large
		}
	}
	return os.TempDir()
}

// scan reads all headers. A member that is not all there is an error: the
// file is truncated.
func (a *Archive) scan(ctx context.Context) error {
	end, err := a.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	section := io.NewSectionReader(a.file, 0, end)
	tr := tar.NewReader(section)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// tar.Reader reads no further than the header's last block.
		off, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		m, ok := newMember(h, off)
		if !ok {
			continue
		}
		if m.size > end-off {
			return fmt.Errorf("%q: %d bytes from byte %d, but the archive ends at %d: %w", h.Name, m.size, off, end, io.ErrUnexpectedEOF)
		}
		if a.members[clean(h.Name)] = m; len(a.members) > maxMembers {
			return fmt.Errorf("it has more than %d members", maxMembers)
		}
	}
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

// clean returns name as a path from the archive's root, which it never leaves.
func clean(name string) string {
	return path.Clean("/" + name)[1:]
}

// Member returns the content of the member of that name. The error is
// fs.ErrNotExist, wrapped, if there is none.
func (a *Archive) Member(name string) (*io.SectionReader, error) {
	at := clean(name)
	for range maxLinks {
		m, ok := a.members[at]
		if !ok {
			return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
		}
		if m.link == "" {
			return io.NewSectionReader(a.file, m.off, m.size), nil
		}
		at = m.link
	}
	return nil, fmt.Errorf("%q: more than %d links in a row: %w", name, maxLinks, fs.ErrNotExist)
}
