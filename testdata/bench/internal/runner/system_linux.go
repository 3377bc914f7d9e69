package runner

import (
	"os"

	"golang.org/x/sys/unix"
)

// MountReadOnly mounts a file system read-only.
func MountReadOnly(source, dir, kind, data string) error {
	return unix.Mount(source, dir, kind, unix.MS_RDONLY, data)
}

// Detach unmounts a directory, also while it is in use.
func Detach(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }

// DropPages has the kernel forget what it keeps of a file.
func DropPages(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
