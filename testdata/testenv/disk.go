package testenv

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Free returns how many bytes the file system of a directory still takes.
func Free(t testing.TB, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Errorf("%s: %v", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
