//go:build !race

package testenv

// Race reports whether the race detector is on: what is measured then means little.
const Race = false
