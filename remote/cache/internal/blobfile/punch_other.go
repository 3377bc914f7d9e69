//go:build !linux

package blobfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Punch fails: a blob's file is removed whole.
func Punch(*os.File, int64, int64) error { return unix.EOPNOTSUPP }
