//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MountOf returns the mounted image that a path is in, or is the root of. It is
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
	if !ok || m.fsType != fsType {
		return MountPoint{}, ErrNotMounted
	}
	return m.point(), nil
}

// Control asks a mounted image for an attribute of its own, by its root: what
// [Options].Control gives. It waits for the server until ctx ends.
func (m MountPoint) Control(ctx context.Context, name string) ([]byte, error) {
	type answer struct {
		value []byte
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value := make([]byte, xattrMax)
		n, err := unix.Getxattr(m.Dir, name, value) // no signal ends it
		answers <- answer{value[:max(n, 0)], err}
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
