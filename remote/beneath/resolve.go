package beneath

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

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
	// Names of files need not be UTF-8.
	if !fs.ValidPath(strings.ToValidUTF8(name, "?")) || strings.IndexByte(name, 0) >= 0 {
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

// walkTo is openat2 for systems that do not have it: it opens each component in
// the one before, and follows none that is a link.
func walkTo(from int, name string, flags int, mode uint32) (int, error) {
	parts := strings.Split(name, "/")
	at := from
	defer func() {
		if at != from {
			unix.Close(at)
		}
	}()
	for _, part := range parts[:len(parts)-1] {
		next, err := openPart(at, part, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
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
		switch fd, err = unix.Openat(at, name, flags, mode); err {
		case unix.EINTR:
		case unix.EMLINK: // FreeBSD's word for a link that is not followed
			return fd, unix.ELOOP
		default:
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
	fd, err := (&Dir{root: d.root, below: "."}).openAt(path.Clean(dir), openDir, 0)
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

// Free returns how many bytes the file system that d lies on still takes from
// users other than root.
func (d *Dir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := d.root.at(func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	return Free(&st), nil
}

// Free returns how many bytes a file system still takes from users other than
// root, math.MaxInt64 if that is not known.
func Free(st *unix.Statfs_t) int64 {
	size := uint64(st.Bsize)
	if size == 0 {
		return math.MaxInt64
	}
	return int64(min(blocks(st.Bavail), math.MaxInt64/size) * size)
}

// blocks returns a number of blocks, which on FreeBSD can be negative: the rest
// is root's.
func blocks[N int64 | uint64](n N) uint64 { return uint64(max(n, 0)) }
