package testenv

import "testing"

// Every returns the step by which a test goes through all that it might try in one
// goroutine: 1, or n with the race detector, which finds nothing there and takes many times
// as long.
func Every(n int) int {
	if Race {
		return n
	}
	return 1
}

// Slow is for tests that take longer than a moment: make quick leaves them
// out.
func Slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes longer than make quick has")
	}
}
