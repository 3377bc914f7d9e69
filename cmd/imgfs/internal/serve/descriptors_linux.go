package serve

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// ownDescriptors is a directory of what this process has open.
const ownDescriptors = "/proc/self/fd"

// closeOnExecFrom keeps descriptors from this one on from programs that this
// process starts. It takes Linux 5.11.
func closeOnExecFrom(first uint) error {
	return unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// redirect makes the descriptor fd one of an open file.
func redirect(fd int, to *os.File) error { return unix.Dup3(int(to.Fd()), fd, 0) }
