package testenv

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BindMount mounts a directory or file on another one until the test ends, or
// undo is called. It takes root.
func BindMount(t testing.TB, from, on string) (undo func()) {
	t.Helper()
	if err := unix.Mount(from, on, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s on %s: %v", from, on, err)
	}
	mounted := true
	undo = func() {
		if !mounted {
			return
		}
		mounted = false
		if err := unix.Unmount(on, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", on, err)
		}
	}
	t.Cleanup(undo)
	return undo
}

// RemountReadOnly makes a mounted file system one that cannot be written.
func RemountReadOnly(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}
