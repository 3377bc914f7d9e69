//go:build !linux

package beneath

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	hasPath  = false
	oPath    = 0 // not used where hasPath is false
	oTmpfile = 0
	// openDir opens a directory to go on from it.
	openDir     = unix.O_SEARCH | unix.O_DIRECTORY
	noAutomount = 0
)

func hasOpenat2() bool { return false }

func openat2(int, string, int, uint32) (fd int, err error) { return -1, unix.ENOSYS }

// setTimes sets the times of an open file's last access and modification, to the
// microsecond.
func setTimes(fd int, t time.Time) error { return setMicroseconds(fd, t) }
