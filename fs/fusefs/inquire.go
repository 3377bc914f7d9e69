//go:build linux

package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unsafe"

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
	if errors.Is(err, unix.EOPNOTSUPP) { // also of a mount without any attributes
		return controlByIoctl(root, name)
	}
	return value[:max(n, 0)], err
}

// controlByIoctl asks the root of a mount, which a descriptor leads to, for what is about
// the mount.
func controlByIoctl(root int, name string) ([]byte, error) {
	dir, err := unix.Open(procFD(root), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	const tries = 5 // others ask too, and servers may be followed by others
	var text []byte
	for range tries {
		if text, err = readDocument(dir, name); !errors.Is(err, unix.ESTALE) {
			break
		}
	}
	return text, err
}

// readDocument reads a document by its pieces.
func readDocument(dir int, name string) ([]byte, error) {
	var block [controlBlock]byte
	if copy(block[controlPiece:], name) != len(name) {
		return nil, unix.ENAMETOOLONG
	}
	var text []byte
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dir), controlIoctl, uintptr(unsafe.Pointer(&block))); errno != 0 {
			return nil, errno
		}
		size, off := binary.NativeEndian.Uint32(block[controlLength:]), binary.NativeEndian.Uint32(block[controlOffset:])
		if size > xattrMax || off > size || int64(off) != int64(len(text)) { // whoever answers is no imgfs
			return nil, unix.EPROTO
		}
		text = append(text, block[controlPiece:min(controlBlock, controlPiece+int(size-off))]...)
		if len(text) == int(size) {
			return text, nil
		}
		binary.NativeEndian.PutUint32(block[controlOffset:], uint32(len(text)))
	}
}

func (m MountPoint) controlError(err error) error {
	switch {
	case isDead(err):
		return ErrDead
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENODATA) && m.foreign:
		return fmt.Errorf("%w to ask a mount of %s", ErrPermission, m.Owner)
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		return ErrNoControl
	}
	return err
}
