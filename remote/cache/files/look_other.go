//go:build !linux

package files

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// touchStep is how exactly the time of a file can be set.
const touchStep = time.Microsecond

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
