package nameless

import (
	"os"

	"golang.org/x/sys/unix"
)

// Memory makes a file in memory; its name is for whoever looks at the process.
func Memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
