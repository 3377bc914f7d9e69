package cache

import (
	"encoding/hex"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// touchStep is how exactly the time of a file can be set.
const touchStep = time.Nanosecond

// punch makes a hole.
func punch(f *os.File, off, n int64) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	return unix.Fallocate(int(f.Fd()), mode, off, n)
}

// setRange takes or gives back a lock on a range of an open file, which belongs
// to the open file and not to the process.
func setRange(f *os.File, l *unix.Flock_t) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, l)
}

// getRange finds out what keeps setRange from taking a lock.
func getRange(f *os.File, l *unix.Flock_t) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l)
}

// look returns what a file is now.
func look(f *os.File) seen {
	var x unix.Statx_t
	// Kernels and sandboxes without statx(2) cost a check each time.
	if unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x) != nil {
		return seen{}
	}
	changed := timestamp{x.Ctime.Sec, int64(x.Ctime.Nsec)}
	id := identity{dev: unix.Mkdev(x.Dev_major, x.Dev_minor), ino: x.Ino, size: x.Size, at: changed}
	if x.Mask&unix.STATX_BTIME != 0 {
		id.at = timestamp{x.Btime.Sec, int64(x.Btime.Nsec)}
	}
	return seen{id, changed}
}

// bootID returns what tells this run of the machine from others: after a
// crash the file may be older than what it speaks of.
func bootID() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	digits := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	if len(digits) == 2*len(id) {
		_, _ = hex.Decode(id[:], []byte(digits))
	}
	return id
}
