package image

import (
	"os"
	"syscall"
)

// openFiles returns how many files this process may have open, and has; 0 and 0 if that is
// not known.
func openFiles() (most, open int) {
	var limit syscall.Rlimit
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil || syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0, 0
	}
	return int(min(limit.Cur, 1<<30)), len(names)
}
