//go:build !race

package inflatetest

// Scale returns n, for the size of a test's input. Under the race detector it
// returns less.
func Scale(n int) int { return n }
