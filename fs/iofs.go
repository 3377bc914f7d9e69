package fs

import (
	"context"
	"io"
	iofs "io/fs"
	"path"
	"strings"
	"syscall"
	"time"
)

// WithContext returns the tree as an io/fs file system whose reads end with ctx.
//
// It has the methods ReadDir, Stat, ReadFile, ReadLink and Lstat of io/fs's
// interfaces. Symlinks are followed inside the tree, by Open too. Names are
// those that fs.ValidPath describes, but may be any bytes, as names in images
// are. Files implement io.ReaderAt and io.Seeker, directories
// fs.ReadDirFile, and FileInfo.Sys gives an Attr. All errors are
// *fs.PathError.
func (t *Tree) WithContext(ctx context.Context) iofs.FS { return &ctxFS{ctx, t} }

var (
	_ iofs.ReadDirFS  = (*ctxFS)(nil)
	_ iofs.StatFS     = (*ctxFS)(nil)
	_ iofs.ReadFileFS = (*ctxFS)(nil)
	_ iofs.ReadLinkFS = (*ctxFS)(nil)

	_ iofs.ReadDirFile = (*dirFile)(nil)
	_ io.ReaderAt      = (*file)(nil)
	_ io.Seeker        = (*file)(nil)
)

// A ctxFS holds its context because io/fs has no room for one in its calls.
type ctxFS struct {
	ctx context.Context
	t   *Tree
}

// lookup finds what an io/fs name means.
func (f *ctxFS) lookup(op, name string, follow bool) (Node, error) {
	if !validPath(name) {
		return Node{}, &iofs.PathError{Op: op, Path: name, Err: iofs.ErrInvalid}
	}
	n, errno := f.t.walk(name, follow)
	if errno != 0 {
		return Node{}, &iofs.PathError{Op: op, Path: name, Err: errno}
	}
	return n, nil
}

// validPath is fs.ValidPath for names of any bytes.
func validPath(name string) bool {
	return name == "." || isClean(name) && !strings.Contains(name, "\x00")
}

func (f *ctxFS) Open(name string) (iofs.File, error) {
	n, err := f.lookup("open", name, true)
	if err != nil {
		return nil, err
	}
	h := handle{f.ctx, n, name}
	if n.inode().isDir() {
		return &dirFile{handle: h}, nil
	}
	return &file{handle: h}, nil
}

func (f *ctxFS) ReadDir(name string) ([]iofs.DirEntry, error) {
	n, err := f.lookup("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if !n.inode().isDir() {
		return nil, &iofs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	return dirEntries(n, 0, n.NumChildren()), nil
}

func (f *ctxFS) Stat(name string) (iofs.FileInfo, error) { return f.stat("stat", name, true) }

func (f *ctxFS) Lstat(name string) (iofs.FileInfo, error) { return f.stat("lstat", name, false) }

func (f *ctxFS) stat(op, name string, follow bool) (iofs.FileInfo, error) {
	n, err := f.lookup(op, name, follow)
	if err != nil {
		return nil, err
	}
	return info{n, path.Base(name)}, nil
}

func (f *ctxFS) ReadLink(name string) (string, error) {
	n, err := f.lookup("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.inode().format() != syscall.S_IFLNK {
		return "", &iofs.PathError{Op: "readlink", Path: name, Err: syscall.EINVAL}
	}
	return n.Target(), nil
}

// maxHoles is how large a sparse file ReadFile reads: its tar entry can claim
// any size and have no data.
const maxHoles = 1 << 30

func (f *ctxFS) ReadFile(name string) ([]byte, error) {
	n, err := f.lookup("read", name, true)
	if err != nil {
		return nil, err
	}
	in := n.inode()
	if n.IsSparse() && in.size > maxHoles {
		return nil, &iofs.PathError{Op: "read", Path: name, Err: syscall.EFBIG}
	}
	// Sizes are claims too: io.ReadAll grows with what there is.
	return io.ReadAll(&file{handle: handle{f.ctx, n, name}})
}

// A handle is what open files and directories have in common.
type handle struct {
	ctx  context.Context
	n    Node
	name string
}

func (h *handle) Stat() (iofs.FileInfo, error) { return info{h.n, path.Base(h.name)}, nil }

func (h *handle) Close() error { return nil }

// wrap makes a *fs.PathError of what is neither nil nor io.EOF.
func (h *handle) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &iofs.PathError{Op: op, Path: h.name, Err: err}
}

// A file is an open file that is no directory.
type file struct {
	handle
	off int64
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.n.ReadAt(f.ctx, p, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil // the next Read says so
	}
	return n, f.wrap("read", err)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.n.ReadAt(f.ctx, p, off)
	return n, f.wrap("read", err)
}

func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		offset += f.n.inode().size
	default:
		offset = -1
	}
	if offset < 0 {
		return 0, f.wrap("seek", syscall.EINVAL)
	}
	f.off = offset
	return offset, nil
}

// A dirFile is an open directory.
type dirFile struct {
	handle
	at int // of the next ReadDir
}

func (d *dirFile) Read([]byte) (int, error) { return 0, d.wrap("read", syscall.EISDIR) }

func (d *dirFile) ReadDir(n int) ([]iofs.DirEntry, error) {
	end := d.n.NumChildren()
	if n > 0 {
		if d.at == end {
			return nil, io.EOF
		}
		end = min(end, d.at+n)
	}
	list := dirEntries(d.n, d.at, end)
	d.at = end
	return list, nil
}

func dirEntries(n Node, from, to int) []iofs.DirEntry {
	list := make([]iofs.DirEntry, 0, to-from)
	for i := from; i < to; i++ {
		name, child := n.ChildAt(i)
		list = append(list, iofs.FileInfoToDirEntry(info{child, name}))
	}
	return list
}

// info is the fs.FileInfo of a node under a name.
type info struct {
	n    Node
	name string
}

func (i info) Name() string        { return i.name }
func (i info) Size() int64         { return i.n.inode().size }
func (i info) IsDir() bool         { return i.n.inode().isDir() }
func (i info) Mode() iofs.FileMode { return fileMode(i.n.Mode()) }
func (i info) Sys() any            { return i.n.Attr() }

func (i info) ModTime() time.Time {
	in := i.n.inode()
	return time.Unix(in.modSec, int64(in.modNsec))
}

// fileMode translates st_mode.
func fileMode(mode uint32) iofs.FileMode {
	m := iofs.FileMode(mode & 0o777)
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		m |= iofs.ModeDir
	case syscall.S_IFLNK:
		m |= iofs.ModeSymlink
	case syscall.S_IFIFO:
		m |= iofs.ModeNamedPipe
	case syscall.S_IFBLK:
		m |= iofs.ModeDevice
	case syscall.S_IFCHR:
		m |= iofs.ModeDevice | iofs.ModeCharDevice
	}
	if mode&syscall.S_ISUID != 0 {
		m |= iofs.ModeSetuid
	}
	if mode&syscall.S_ISGID != 0 {
		m |= iofs.ModeSetgid
	}
	if mode&syscall.S_ISVTX != 0 {
		m |= iofs.ModeSticky
	}
	return m
}
