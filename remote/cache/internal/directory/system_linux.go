package directory

import (
	"encoding/hex"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// setRange takes or gives back a lock on a range of an open file, which belongs
// to the open file and not to the process.
func setRange(f *os.File, l *unix.Flock_t) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, l)
}

// getRange finds out what keeps setRange from taking a lock.
func getRange(f *os.File, l *unix.Flock_t) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l)
}

// BootID returns what tells this run of the machine from others: after a
// crash the file may be older than what it speaks of.
func BootID() (id [16]byte) {
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
