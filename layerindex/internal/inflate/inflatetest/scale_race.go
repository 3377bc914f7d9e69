//go:build race

package inflatetest

// Scale returns an eighth of n, for the size of a test's input: the race
// detector makes decoding some twenty times slower and has little to find in it.
func Scale(n int) int { return n / 8 }
