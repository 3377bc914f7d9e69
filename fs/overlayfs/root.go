//go:build linux

package overlayfs

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// copyRoot gives a directory the owner, mode, times and extended attributes of another
// one, as far as this process may.
func copyRoot(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	_ = unix.Chown(to, int(st.Uid), int(st.Gid)) // a plain user has but one
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	err := copyXattrs(from, to)
	times := []unix.Timespec{st.Atim, st.Mtim}
	return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, to, times, 0))
}

func copyXattrs(from, to string) error {
	names := make([]byte, 64<<10) // as many as the kernel lets there be
	n, err := unix.Listxattr(from, names)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range bytes.SplitSeq(names[:n], []byte{0}) {
		name := string(name)
		if name == "" || strings.Contains(name, ".overlay.") {
			continue
		}
		if n, err := unix.Getxattr(from, name, value); err == nil {
			_ = unix.Setxattr(to, name, value[:n], 0) // what this process may not have
		}
	}
	return nil
}
