package testenv

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// SmallDisk mounts an empty file system of n bytes on a directory until the
// test ends. A test that may not do so is skipped, but root's with CI=true
// fails.
func SmallDisk(t testing.TB, dir string, n int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", n)); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// Allocate has n bytes of a file's disk set aside for it.
func Allocate(f *os.File, off, n int64) error {
	return syscall.Fallocate(int(f.Fd()), 0, off, n)
}
