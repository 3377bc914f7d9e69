// Package memfile makes files that are in memory alone: for content that must be nowhere on a
// disk, or that a library reads from nothing but a file.
package memfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// New returns a new file that is in memory alone, until it is closed by all who have it open.
// The name is for people who look at the descriptors of a process. No program that is started
// inherits it. Other systems than Linux have no such files: errors.ErrUnsupported.
func New(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
