package beneath

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Nothing that openat2 could follow away from the directory is followed.
const resolveHow = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openAt opens a name below d.
func (d *Dir) openAt(name string, flags int, mode uint32) (fd int, err error) {
	full, err := d.full(name)
	if err != nil {
		return -1, err
	}
	err = d.root.at(func(root int) (err error) {
		fd, err = d.root.openBelow(root, full, flags, mode)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// full returns the name in the root.
func (d *Dir) full(name string) (string, error) {
	if !fs.ValidPath(name) || strings.IndexByte(name, 0) >= 0 {
		return "", fs.ErrInvalid
	}
	return path.Join(d.below, name), nil
}

// openBelow opens a name that begins at the directory from.
func (r *root) openBelow(from int, name string, flags int, mode uint32) (fd int, err error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if r.walk {
		return walkTo(from, name, flags, mode)
	}
	return openat2(from, name, flags, mode)
}

func openat2(from int, name string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: resolveHow}
	if flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE {
		how.Mode = uint64(mode)
	}
	// EAGAIN: something was moved or mounted meanwhile.
	for range 100 {
		if fd, err = unix.Openat2(from, name, &how); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

// hasOpenat2 reports whether the kernel, and the sandbox if this is one, lets
// openat2 be used.
func hasOpenat2() bool {
	fd, err := openat2(unix.AT_FDCWD, ".", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	// Old sandboxes say EPERM of calls that they do not know.
	return err != unix.ENOSYS && err != unix.EPERM
}

// walkTo is openat2 for kernels that do not have it: each component is opened
// in the one before it, without following it if it is a link.
func walkTo(from int, name string, flags int, mode uint32) (int, error) {
	parts := strings.Split(name, "/")
	at := from
	defer func() {
		if at != from {
			unix.Close(at)
		}
	}()
	for _, part := range parts[:len(parts)-1] {
		next, err := openPart(at, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		if at != from {
			unix.Close(at)
		}
		at = next
	}
	mount := mountOf(from)
	if at != from && mountOf(at) != mount {
		return -1, unix.EXDEV
	}
	fd, err := openPart(at, parts[len(parts)-1], flags, mode)
	if err == nil && mountOf(fd) != mount {
		unix.Close(fd)
		return -1, unix.EXDEV
	}
	return fd, err
}

func openPart(at int, name string, flags int, mode uint32) (fd int, err error) {
	for {
		if fd, err = unix.Openat(at, name, flags, mode); err != unix.EINTR {
			return fd, err
		}
	}
}

// mountOf returns what tells the mount that an open file lies on from others:
// its number, or the device where there is no /proc.
func mountOf(fd int) string {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err == nil {
		for line := range bytes.Lines(text) {
			if id, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
				return string(bytes.TrimSpace(id))
			}
		}
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	return fmt.Sprintf("device %d", st.Dev)
}

// parent calls do with the directory that a name lies in, and its last component.
func (d *Dir) parent(name string, do func(fd int, base string) error) error {
	full, err := d.full(name)
	if err != nil {
		return err
	}
	dir, base := path.Split(full)
	if base == "." {
		return fs.ErrInvalid
	}
	if dir == "" {
		return d.root.at(func(fd int) error { return do(fd, base) })
	}
	fd, err := (&Dir{root: d.root, below: "."}).openAt(path.Clean(dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd, base)
}

// Stat returns what lies at a name, of a link the link itself. What lies
// behind a link or a mount is refused.
func (d *Dir) Stat(name string) (*unix.Stat_t, error) {
	st, err := d.look(name)
	if err != nil {
		return nil, d.failed("stat", name, err)
	}
	return st, nil
}

// Is reports whether the open file f is the one at a name.
func (d *Dir) Is(f *os.File, name string) bool {
	var open unix.Stat_t
	if unix.Fstat(int(f.Fd()), &open) != nil {
		return false
	}
	named, err := d.look(name)
	return err == nil && open.Dev == named.Dev && open.Ino == named.Ino
}

// Exists reports whether there is something at a name.
func (d *Dir) Exists(name string) bool {
	_, err := d.look(name)
	return err == nil || err == unix.EXDEV
}

// Statfs returns what the file system says that d lies on.
func (d *Dir) Statfs() (st unix.Statfs_t, err error) {
	err = d.root.at(func(fd int) error { return unix.Fstatfs(fd, &st) })
	return st, err
}
