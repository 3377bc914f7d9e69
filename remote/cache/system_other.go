//go:build !linux

package cache

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// touchStep is how exactly the time of a file can be set.
const touchStep = time.Microsecond

// punch fails: a blob's file is removed whole.
func punch(*os.File, int64, int64) error { return unix.EOPNOTSUPP }

// setRange fails: other systems have no locks on ranges of a file that belong to
// the open file and not to the process. So processes do not share a ledger, and
// each walks through the directory for itself.
func setRange(*os.File, *unix.Flock_t) error { return unix.ENOSYS }

func getRange(*os.File, *unix.Flock_t) error { return unix.ENOSYS }

// look returns what a file is now.
func look(f *os.File) seen {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return seen{}
	}
	changed := timestamp{int64(st.Ctim.Sec), int64(st.Ctim.Nsec)}
	id := identity{dev: uint64(st.Dev), ino: st.Ino, size: uint64(st.Size), at: changed}
	if st.Btim.Sec > 0 {
		id.at = timestamp{int64(st.Btim.Sec), int64(st.Btim.Nsec)}
	}
	return seen{id, changed}
}

// bootID is not known.
func bootID() (id [16]byte) { return id }

func takesVerity(*os.File) bool { return false }

func enableVerity(*os.File) error { return unix.EOPNOTSUPP }
