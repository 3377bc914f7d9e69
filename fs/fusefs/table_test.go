//go:build linux

package fusefs

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// aborter returns what aborts the connection of a mount.
func aborter(t testing.TB, dir string) (abort func()) {
	t.Helper()
	control := t.TempDir()
	if err := unix.Mount("none", control, "fusectl", 0, ""); err != nil {
		t.Skipf("mounting fusectl: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(control, unix.MNT_DETACH) })
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.WriteFile(fmt.Sprintf("%s/%d/abort", control, unix.Minor(st.Dev)), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// mountedAt returns what is mounted on a directory, the topmost if there are
// several.
func mountedAt(table []mountEntry, dir string) (mountEntry, bool) {
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].dir == dir {
			return table[i], true
		}
	}
	return mountEntry{}, false
}

func isMounted(t testing.TB, dir string) bool {
	t.Helper()
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	_, ok := mountedAt(table, dir)
	return ok
}
