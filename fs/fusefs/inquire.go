//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOf returns the mounted image that a path is in, or is the root of, also by
// its writable view. It is
// ErrNotMounted if that is none, and ErrDead or ErrNoAnswer if the path cannot be
// followed because of the server of the mount that it is in.
func MountOf(ctx context.Context, path string) (MountPoint, error) {
	at, err := openPlace(ctx, path, 0)
	if err != nil {
		return MountPoint{}, dirError(err)
	}
	defer at.close()
	table, err := mountTable()
	if err != nil {
		return MountPoint{}, err
	}
	m, ok := withID(table, at.mount)
	if image, below := imageBelow(table, m); below {
		point := image.point()
		point.Shown = m.dir
		return point, nil
	}
	if !ok || m.fsType != fsType {
		return MountPoint{}, ErrNotMounted
	}
	return m.point(), nil
}

// Control asks a mounted image for an attribute of its own, by its root: what
// [Options].Control gives. It waits for the server until ctx ends. It is ErrHidden if
// something else is mounted over the root.
func (m MountPoint) Control(ctx context.Context, name string) ([]byte, error) {
	type answer struct {
		value []byte
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := m.attribute(name) // no signal ends it
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, m.controlError(a.err)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ErrNoAnswer
		}
		return nil, ctx.Err()
	}
}

// attribute reads an attribute of the root of a mount, and of no other one that is on
// its directory.
func (m MountPoint) attribute(name string) ([]byte, error) {
	root, err := unix.Open(m.Dir, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR): // the mount that hides it is on a directory above
		return nil, ErrHidden
	case err != nil:
		return nil, err
	}
	defer unix.Close(root)
	switch id, err := mountOfFD(root); {
	case err != nil:
		return nil, err
	case id != m.id:
		return nil, ErrHidden
	}
	value := make([]byte, xattrMax)
	// A mount that waits for its image answers for this name alone.
	n, err := unix.Getxattr(procFD(root), controlPrefix+strings.TrimPrefix(name, ownPrefix), value)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) { // the imgfs that serves it is older
		n, err = unix.Getxattr(procFD(root), name, value)
	}
	return value[:max(n, 0)], err
}

func (m MountPoint) controlError(err error) error {
	switch {
	case isDead(err):
		return ErrDead
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENODATA) && m.foreign:
		return fmt.Errorf("%w to ask a mount of %s", ErrPermission, m.Owner)
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return ErrNoControl
	}
	return err
}
