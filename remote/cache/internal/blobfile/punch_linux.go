package blobfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Punch makes a hole.
func Punch(f *os.File, off, n int64) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	return unix.Fallocate(int(f.Fd()), mode, off, n)
}
