package treecopy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A temp is a file that has yet to get its name.
type temp struct {
	dir  int
	fd   int    // of a regular file; else opened with O_PATH
	name string // "": it has none
}

// tempName returns a name that nothing has.
func tempName() string { return ".imgfs-" + rand.Text() }

// close closes the file, which is gone then if it did not get its name.
func (t *temp) close() {
	unix.Close(t.fd)
	if t.name != "" {
		_ = unix.Unlinkat(t.dir, t.name, 0)
	}
}

// newFile makes a regular file where the place is.
func (r *run) newFile(at place, mode uint32) (*temp, error) {
	if !r.named {
		fd, err := unix.Openat(at.fd, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, mode)
		if err == nil {
			return &temp{dir: at.fd, fd: fd}, nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
	}
	name := tempName()
	fd, err := unix.Openat(at.fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return &temp{at.fd, fd, name}, nil
}

// give gives the file its name, in place of what has it.
func (r *run) give(t *temp, at place) error {
	if t.name == "" {
		err := linkDescriptor(t.fd, at.fd, at.name)
		if err == nil || errors.Is(err, unix.EEXIST) && r.opts.KeepExisting {
			return nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		name := tempName()
		if err := linkDescriptor(t.fd, at.fd, name); err != nil {
			return err
		}
		t.name = name
	}
	var err error
	if r.opts.KeepExisting {
		if err = unix.Renameat2(t.dir, t.name, at.fd, at.name, unix.RENAME_NOREPLACE); errors.Is(err, unix.EEXIST) {
			return nil // and what was made goes
		}
	}
	if !r.opts.KeepExisting || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = unix.Renameat(t.dir, t.name, at.fd, at.name)
	}
	switch {
	case err == nil:
		t.name = ""
	case errors.Is(err, unix.EISDIR):
		return ErrDirectory
	}
	return err
}

// linkDescriptor gives a file without a name one.
func linkDescriptor(fd, dir int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
}

// procPath is a path of what a descriptor is of.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// exists reports whether something is at a place.
func exists(at place) bool {
	var st unix.Stat_t
	return unix.Fstatat(at.fd, at.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// file copies a regular file.
func (r *run) file(at place, from string, n fs.Node) error {
	if r.opts.KeepExisting && exists(at) {
		return nil
	}
	if done, err := r.link(at, n); done || err != nil {
		return r.orFailed(at, from, err)
	}
	mode := n.Mode() & 0o777
	if r.closed() {
		mode = 0o600
	}
	t, err := r.newFile(at, mode)
	if err != nil {
		return r.failed(at, from, err)
	}
	defer t.close()
	if err := r.content(t.fd, at, from, n); err != nil {
		return err
	}
	if err = r.finish(descriptor{fd: t.fd}, at, from, n); err == nil {
		err = r.give(t, at)
	}
	if err == nil {
		err = r.remember(t.fd, at, n)
	}
	return r.orFailed(at, from, err)
}

// orFailed returns nil, or an *Error about a place.
func (r *run) orFailed(at place, from string, err error) error {
	if failed := (*Error)(nil); err == nil || errors.As(err, &failed) {
		return err
	}
	return r.failed(at, from, err)
}

// content writes the content of a file into an empty one. Holes stay holes.
func (r *run) content(fd int, at place, from string, n fs.Node) error {
	written := int64(0)
	for off, end := range n.Data() {
		for off < end {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			p := r.buf[:min(int64(len(r.buf)), end-off)]
			k, err := n.ReadAt(r.ctx, p, off)
			if k < len(p) && (err == nil || err == io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if k < len(p) {
				return r.unread(at, from, err)
			}
			if err := writeAt(fd, p, off); err != nil {
				return r.failed(at, from, err)
			}
			off += int64(k)
			if r.opts.Progress != nil {
				r.opts.Progress(int64(k))
			}
		}
		written = end
	}
	if size := n.Attr().Size; written < size {
		return r.orFailed(at, from, unix.Ftruncate(fd, size))
	}
	return nil
}

// writeAt writes all of p at an offset.
func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// special copies what has no content: a symlink, a FIFO, a device.
func (r *run) special(at place, from string, n fs.Node) error {
	if r.opts.KeepExisting && exists(at) {
		return nil
	}
	if done, err := r.link(at, n); done || err != nil {
		return r.orFailed(at, from, err)
	}
	t, err := r.newSpecial(at, n)
	if err != nil {
		if errors.Is(err, ErrDevice) {
			return r.unread(at, from, err)
		}
		return r.failed(at, from, err)
	}
	defer t.close()
	if err = r.finish(descriptor{t.fd, true}, at, from, n); err == nil {
		err = r.give(t, at)
	}
	if err == nil {
		err = r.remember(t.fd, at, n)
	}
	return r.orFailed(at, from, err)
}

// newSpecial makes a symlink, a FIFO or a device where the place is.
func (r *run) newSpecial(at place, n fs.Node) (*temp, error) {
	a, name := n.Attr(), tempName()
	format := a.Mode & unix.S_IFMT
	mode := a.Mode & 0o777
	if r.closed() {
		mode = 0o600
	}
	var err error
	var device uint64
	switch format {
	case unix.S_IFLNK:
		err = unix.Symlinkat(n.Target(), at.fd, name)
	case unix.S_IFIFO:
		err = unix.Mknodat(at.fd, name, format|mode, 0)
	case unix.S_IFCHR, unix.S_IFBLK:
		if !r.opts.Devices {
			return nil, ErrDevice
		}
		device = unix.Mkdev(a.Major, a.Minor)
		err = unix.Mknodat(at.fd, name, format|mode, int(device))
	default:
		err = fmt.Errorf("a file of mode %o", a.Mode)
	}
	if err != nil {
		return nil, err
	}
	t := &temp{at.fd, -1, name}
	if t.fd, err = unix.Openat(at.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		t.close()
		return nil, err
	}
	// Others may write the directory, and exchange what was just made.
	var st unix.Stat_t
	if err = unix.Fstat(t.fd, &st); err == nil && (st.Mode&unix.S_IFMT != format || st.Nlink != 1 || st.Rdev != device) {
		err = errors.New("another process has exchanged it")
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}
