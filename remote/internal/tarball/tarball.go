// Package tarball gives random access to the members of a tar file that
// holds an image: one scan of the headers, then a section of the file for
// each member.
//
// A tar has no list of its members and a compressed one no random access at
// all, so a compressed file, or one that is no regular file (a pipe), is
// unpacked into a temporary file, which has no name and goes away with the
// process. The headers are read while it is unpacked: what is no tar is not
// unpacked, nothing behind the end of the tar is, and a member that is bigger
// than allowed ends it before it comes.
//
//	a, err := tarball.Open(ctx, "image.tar", nil)
//	r, err := a.Member("manifest.json")
//
// The last of several members with the same name counts, as for tar -x. Names
// are cleaned and rooted in the archive: "./a", "/a" and "../a" are "a".
// Symbolic and hard links to members are followed; docker save once wrote
// repeated layers so. Sparse members, of GNU tar's four formats, are read with
// their holes.
package tarball

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/imgfs/imgfs/remote"
)

// maxLinks is how many links in a row are followed.
const maxLinks = 16

// An Archive is an open tar file. It is safe for concurrent use.
type Archive struct {
	file    remote.TempFile
	members map[string]member
	others  map[string]byte // the types of what is no file, by name
	max     int64           // bytes of a sparse member; 0: no bound
	named   bool            // it lies at the name that Open was given
}

// Named reports whether the archive lies at the name that Open was given, which is not
// so of ArchiveOptions.From.
func (a *Archive) Named() bool { return a.named }

// newArchive returns the archive in file that was scanned.
func newArchive(file remote.TempFile, s *scan, most int64) *Archive {
	for _, m := range s.members {
		if m.sparse != nil {
			m.sparse.file = file // the scan may have had another view of it
		}
	}
	return &Archive{file: file, members: s.members, others: s.others, max: most}
}

// A member is what the scan keeps of one: where its content is in the file,
// or the name of the member that it is a link to.
type member struct {
	off, size int64
	link      string
	sparse    *sparseMap // nil if its content is one section of the file
}

// Open opens the tar file of that name, or opts.From, unpacks it if it is
// compressed, and scans its headers. When ctx ends it returns ctx.Err(), also while it
// waits for the other end of a pipe. Errors do not repeat the name, except for an
// *fs.PathError.
func Open(ctx context.Context, name string, opts *remote.ArchiveOptions) (*Archive, error) {
	if opts == nil {
		opts = &remote.ArchiveOptions{}
	}
	in, err := openInput(ctx, name, opts)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	defer in.stop()
	a, err := open(ctx, in, opts)
	if err == nil {
		a.named = opts.From == nil
	}
	if err == nil && in.regular && a.file == remote.TempFile(in.file) {
		return a, nil
	}
	in.close()
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return a, err
}

// open makes an archive of the input itself if it is a plain, regular file, and else
// of a temporary file with the unpacked content.
func open(ctx context.Context, in *input, opts *remote.ArchiveOptions) (*Archive, error) {
	from := &watched{Reader: in.reader}
	r, compressed, err := Decompress(ctx, from)
	if errors.Is(err, errCompression) {
		return nil, fmt.Errorf("%w: %w", ErrNotArchive, err)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if compressed || !in.regular {
		if opts.Progress != nil {
			from.told = func(read int64) { opts.Progress(read, in.size) }
		}
		return unpack(ctx, r, opts)
	}
	if err := checkStart(io.NewSectionReader(in.file, 0, blockSize)); err != nil && !errors.Is(err, errEmpty) && !errors.Is(err, errNothing) {
		return nil, err
	}
	s, err := scanFile(ctx, io.NewSectionReader(in.file, 0, in.size))
	if err != nil {
		return nil, err
	}
	return newArchive(in.file, s, opts.Limit()), nil
}

// A watched reader tells how much was read of it by now.
type watched struct {
	io.Reader
	n    int64
	told func(n int64) // may be nil
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.n += int64(n); w.told != nil {
		w.told(w.n)
	}
	return n, err
}

// Close closes the file. Members cannot be read any more.
func (a *Archive) Close() error { return a.file.Close() }

// clean returns name as a path from the archive's root, which it never leaves.
func clean(name string) string {
	return path.Clean("/" + name)[1:]
}

// ErrNotFile: a member of that name is there, and is no file.
var ErrNotFile = errors.New("not a file")

// A notFileError says what is there instead of a file.
type notFileError struct{ name, what string }

func (e *notFileError) Error() string {
	return fmt.Sprintf("%q is %s in the archive, not a file", e.name, e.what)
}

// Is makes it ErrNotFile, and the fs.ErrNotExist of files.
func (e *notFileError) Is(target error) bool { return target == ErrNotFile || target == fs.ErrNotExist }

// Member returns the content of the member of that name, of a sparse one with its
// holes, which read as zeros. The error is fs.ErrNotExist if there is none, ErrNotFile
// too if what is there is no file, and remote.ErrTooBig if a sparse one says that it
// is bigger than an archive may be when it is unpacked.
func (a *Archive) Member(name string) (*io.SectionReader, error) {
	at := clean(name)
	for range maxLinks {
		m, ok := a.members[at]
		if !ok {
			if what, ok := otherTypes[a.others[at]]; ok {
				return nil, &notFileError{name, what}
			}
			return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
		}
		if m.sparse != nil {
			if a.max > 0 && m.size > a.max {
				return nil, fmt.Errorf("%w: %q is a sparse file of %d bytes, more than the %d allowed", remote.ErrTooBig, name, m.size, a.max)
			}
			return io.NewSectionReader(m.sparse, 0, m.size), nil
		}
		if m.link == "" {
			return io.NewSectionReader(a.file, m.off, m.size), nil
		}
		at = m.link
	}
	return nil, fmt.Errorf("%q: more than %d links in a row: %w", name, maxLinks, fs.ErrNotExist)
}
