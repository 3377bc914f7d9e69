//go:build !linux

package serve

import (
	"os"

	"golang.org/x/sys/unix"
)

// ownDescriptors is a directory of what this process has open.
const ownDescriptors = "/dev/fd"

func closeOnExecFrom(uint) error { return unix.ENOSYS }

// redirect makes the descriptor fd one of an open file.
func redirect(fd int, to *os.File) error { return unix.Dup2(int(to.Fd()), fd) }
