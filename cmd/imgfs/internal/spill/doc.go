// Package spill has memory that the kernel may take back: arrays in a file without a name,
// mapped into the process, for trees that are larger than what the process may hold.
package spill

import "os"

// A File is what an Arena is in. It has no name, or nobody else knows it.
type File interface {
	// Reserve is called before the file gets as long as this.
	Reserve(size int64) error
	File() *os.File
}
