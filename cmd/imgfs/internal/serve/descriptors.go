package serve

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Isolate lets no process that this one starts have what this one was started
// with: descriptors of locks, pipes and secrets, and a mask that would give files
// more rights than they are to have, or none.
func Isolate() {
	unix.Umask(0o077)
	if closeOnExecFrom(3) == nil {
		return
	}
	open, err := os.ReadDir(ownDescriptors)
	if err != nil {
		return
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
