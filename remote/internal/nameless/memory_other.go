//go:build !linux

package nameless

import "os"

// Memory makes a file as Create does: here none lies in memory.
func Memory(string) (*os.File, error) { return Create(Dir(), 0) }
