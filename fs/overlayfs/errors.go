package overlayfs

import (
	"errors"
	"os"
	"syscall"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// Reasons why a directory cannot take what is written.
var (
	errNoParent = errors.New("the directory that it would be in does not exist")
	errNoNew    = errors.New("its file system makes no directories")
	errNotDir   = errors.New("it is not a directory")
	errInUse    = errors.New("another mount uses it")
	errNoXattrs = errors.New("its file system has no extended attributes that an overlay can use")
	errNoTypes  = errors.New("its file system does not tell the types of files in lists (d_type)")
	errReadOnly = errors.New("its file system is read-only")
	errFull     = errors.New("its file system is full")
	errStacked  = errors.New("it is itself on an overlay, on which the kernel mounts no other one")
	errNoKernel = errors.New("this process may not mount an overlay of the kernel")
	errColon    = errors.New("fuse-overlayfs takes no path with a colon in it")
	errNoFUSE   = errors.New("fuse-overlayfs is not installed, and this user may not mount an overlay of the kernel")
)

const (
	hintNew     = "name a new directory, which imgfs makes"
	hintDisk    = "name a directory on a disk, such as one of ext4, xfs or btrfs"
	hintGetFUSE = "install the package fuse-overlayfs: apt-get install fuse-overlayfs (or dnf, apk, pacman), as root"
)

// A hinted error brings a hint of its own.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// overlayError wraps err, if it is not nil, with its hint.
func overlayError(dir string, err error) error {
	var done *fusefs.Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	var h hinted
	switch {
	case errors.As(err, &h):
	case errors.Is(err, syscall.EROFS):
		err, h.hint = errReadOnly, hintDisk
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		err, h.hint = errFull, "make room there, or name a directory elsewhere"
	case errors.Is(err, os.ErrPermission):
		h.hint = "choose a directory of your own"
	}
	return &fusefs.Error{Op: "overlay", Dir: dir, Err: err, Hint: h.hint}
}
