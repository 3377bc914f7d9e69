//go:build !linux

package runner

import (
	"errors"
	"os"
)

// MountReadOnly fails.
func MountReadOnly(source, dir, kind, data string) error { return errors.ErrUnsupported }

// Detach fails.
func Detach(dir string) error { return errors.ErrUnsupported }

// DropPages fails.
func DropPages(f *os.File) error { return errors.ErrUnsupported }
