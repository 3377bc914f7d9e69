//go:build !linux

package testenv

import "testing"

// SmallDisk skips the test.
func SmallDisk(t testing.TB, dir string, n int) {
	t.Helper()
	t.Skip("only on Linux a small file system can be mounted")
}
