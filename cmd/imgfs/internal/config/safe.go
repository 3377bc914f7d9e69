package config

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// open opens a file. A FIFO that nobody writes to does not stop it.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// safe refuses a file that somebody else than the user and root may have written, as
// ssh does.
func safe(info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	switch me := os.Geteuid(); {
	case st.Uid != 0 && int(st.Uid) != me:
		return fmt.Errorf("%w: it belongs to user %d, and not to user %d or root", ErrUnsafe, st.Uid, me)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: others may write it (mode %04o)", ErrUnsafe, info.Mode().Perm())
	}
	return nil
}
