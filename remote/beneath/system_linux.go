package beneath

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	hasPath  = true
	oPath    = unix.O_PATH
	oTmpfile = unix.O_TMPFILE
	// openDir opens a directory to go on from it.
	openDir     = unix.O_PATH | unix.O_DIRECTORY
	noAutomount = unix.AT_NO_AUTOMOUNT
)

// Nothing that openat2 could follow away from the directory is followed.
const resolveHow = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

func openat2(from int, name string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: resolveHow}
	if flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE {
		how.Mode = uint64(mode)
	}
	// EAGAIN: something was moved or mounted meanwhile.
	for range 100 {
		if fd, err = unix.Openat2(from, name, &how); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

// hasOpenat2 reports whether the kernel, and the sandbox if this is one, lets
// openat2 be used.
func hasOpenat2() bool {
	fd, err := openat2(unix.AT_FDCWD, ".", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	// Old sandboxes say EPERM of calls that they do not know.
	return err != unix.ENOSYS && err != unix.EPERM
}

// setTimes sets the times of an open file's last access and modification.
func setTimes(fd int, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err == nil {
		err = unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
	}
	if err == unix.EINVAL || err == unix.ENOENT {
		// Before Linux 5.8; it takes /proc.
		return setMicroseconds(fd, t)
	}
	return err
}
