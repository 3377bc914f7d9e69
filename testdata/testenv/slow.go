package testenv

import "testing"

// Slow is for tests that take longer than a moment: make quick leaves them
// out.
func Slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes longer than make quick has")
	}
}
