package serve

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Isolate lets no process that this one starts have what this one was started
// with: descriptors of locks, pipes and secrets, and a mask that would give files
// more rights than they are to have, or none. It returns the user's mask, for files that
// are the user's and not imgfs's own.
func Isolate() (umask uint32) {
	umask = uint32(unix.Umask(0o077))
	if closeOnExecFrom(3) == nil {
		return umask
	}
	open, err := os.ReadDir(ownDescriptors)
	if err != nil {
		return umask
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return umask
}
