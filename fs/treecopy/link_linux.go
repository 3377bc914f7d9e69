package treecopy

import (
	"errors"
	"os"
	"path"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A linked is the first copy of an inode that has several names.
type linked struct {
	root     *os.File
	below    string
	dev, ino uint64
}

// remember notes where the first copy of an inode with several names is.
func (r *run) remember(fd int, at place, n fs.Node) error {
	if !r.opts.HardLinks || n.Attr().Nlink < 2 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	r.links[inode{r.tree, n.Ino()}] = linked{r.root, at.below, st.Dev, st.Ino}
	return nil
}

// link makes the place another name of the copy of n, if there is one. If that cannot be
// linked there it reports false, and n is to be copied again.
func (r *run) link(at place, n fs.Node) (done bool, err error) {
	first, ok := r.links[inode{r.tree, n.Ino()}]
	if !ok {
		return false, nil
	}
	dir, err := openBelow(int(first.root.Fd()), path.Dir(first.below))
	if err != nil {
		return false, nil // somebody has moved it
	}
	defer unix.Close(dir)
	t := &temp{at.fd, -1, tempName()}
	if err := unix.Linkat(dir, path.Base(first.below), t.dir, t.name, 0); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return false, err
		}
		return false, nil // too many links, another file system mounted there, ...
	}
	defer t.close()
	var st unix.Stat_t
	err = unix.Fstatat(t.dir, t.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Dev != first.dev || st.Ino != first.ino {
		return false, err
	}
	named := t.name
	if err := r.give(t, at); err != nil {
		return false, err
	}
	t.name = named // renaming does nothing if the place has the same inode already
	return true, nil
}

// openBelow opens a directory, without following a symlink.
func openBelow(dir int, below string) (int, error) {
	fd, err := unix.Openat(dir, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for name := range strings.SplitSeq(below, "/") {
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}
