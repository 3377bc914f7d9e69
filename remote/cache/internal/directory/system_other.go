//go:build !linux

package directory

import (
	"os"

	"golang.org/x/sys/unix"
)

// setRange fails: other systems have no locks on ranges of a file that belong to
// the open file and not to the process. So processes do not share a ledger, and
// each walks through the directory for itself.
func setRange(*os.File, *unix.Flock_t) error { return unix.ENOSYS }

func getRange(*os.File, *unix.Flock_t) error { return unix.ENOSYS }

// BootID is not known.
func BootID() (id [16]byte) { return id }
