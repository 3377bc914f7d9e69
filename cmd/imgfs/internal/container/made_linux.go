package container

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A madeDirectory is a directory of the container that the image need not have.
type madeDirectory struct {
	Path     string `json:"path"`
	UID, GID int
}

// made returns the directories to make: the volumes, and the working directory.
func (c *Container) made() []madeDirectory {
	p := c.Spec.Process
	if p == nil {
		return nil
	}
	var all []madeDirectory
	for _, name := range append([]string{p.Cwd}, c.Volumes...) {
		all = append(all, madeDirectory{Path: name, UID: int(p.User.UID), GID: int(p.User.GID)})
	}
	return all
}

// makeDirectories makes directories below the root of the container that are not there.
// Where links lead is up to the image, but not out of it.
func (v *supervisorState) makeDirectories(root string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the container's root: %w", err)
	}
	defer unix.Close(fd)
	for _, d := range v.setup.Made {
		if err := d.makeBelow(fd); err != nil {
			return fmt.Errorf("making %s in the container: %w", d.Path, err)
		}
	}
	return nil
}

func (d madeDirectory) makeBelow(root int) error {
	at := "."
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+d.Path), "/"), "/") {
		if part == "" {
			continue
		}
		parent, err := openBelow(root, at)
		if err != nil {
			return err
		}
		err = d.makeIn(parent, part)
		unix.Close(parent)
		if err != nil {
			return err
		}
		at = path.Join(at, part)
	}
	return nil
}

func (d madeDirectory) makeIn(parent int, name string) error {
	err := unix.Mkdirat(parent, name, 0o755)
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case err != nil:
		return err
	}
	return unix.Fchownat(parent, name, d.UID, d.GID, unix.AT_SYMLINK_NOFOLLOW)
}

// openBelow opens a directory. Links lead to places below root.
func openBelow(root int, name string) (int, error) {
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
