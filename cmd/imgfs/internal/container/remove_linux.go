package container

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeAll is os.RemoveAll for what a stranger has written: a tree may be deeper than
// there are descriptors, and its directories may be closed.
func removeAll(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	top, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return os.RemoveAll(path)
	}
	defer top.Close()
	// What lies in a directory of the top is brought up, until there are none.
	for next := 0; ; {
		names, err := namesIn(top)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return os.RemoveAll(path)
		}
		for _, name := range names {
			if err := raise(top, name, &next); err != nil {
				return &os.PathError{Op: "remove", Path: path, Err: err}
			}
		}
	}
}

// raise removes an entry of the top, and puts the directories in it in its place.
func raise(top *os.File, name string, next *int) error {
	if unlink(top, name) == nil {
		return nil
	}
	_ = unix.Fchmodat(int(top.Fd()), name, 0o700, 0) // it is a directory, and perhaps closed
	fd, err := unix.Openat(int(top.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	for _, inner := range names {
		if unlink(dir, inner) == nil {
			continue
		}
		_ = unix.Fchmodat(fd, inner, 0o700, 0) // else it could not get another parent
		for {
			*next++
			err := unix.Renameat2(fd, inner, int(top.Fd()), ".raised-"+strconv.Itoa(*next), unix.RENAME_NOREPLACE)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
	}
	return unix.Unlinkat(int(top.Fd()), name, unix.AT_REMOVEDIR)
}

// unlink removes an entry of a directory, unless it is a directory that is not empty.
func unlink(dir *os.File, name string) error {
	if unix.Unlinkat(int(dir.Fd()), name, 0) == nil {
		return nil
	}
	return unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
}

func namesIn(dir *os.File) ([]string, error) {
	if _, err := dir.Seek(0, 0); err != nil {
		return nil, err
	}
	return dir.Readdirnames(-1)
}
