//go:build !linux

package testenv

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk skips the test.
func SmallDisk(t testing.TB, dir string, n int) {
	t.Helper()
	t.Skip("only on Linux a small file system can be mounted")
}

// BindMount skips the test.
func BindMount(t testing.TB, from, on string) (undo func()) {
	t.Helper()
	t.Skip("only Linux has bind mounts")
	return nil
}

// RemountReadOnly skips the test.
func RemountReadOnly(t testing.TB, dir string) {
	t.Helper()
	t.Skip("only on Linux a file system can be mounted")
}

// Allocate fails.
func Allocate(f *os.File, off, n int64) error { return unix.ENOSYS }
