//go:build !linux

package files

import (
	"os"

	"golang.org/x/sys/unix"
)

func takesVerity(*os.File) bool { return false }

func enableVerity(*os.File) error { return unix.EOPNOTSUPP }
