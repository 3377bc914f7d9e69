//go:build !linux

// Package memfile makes files that are in memory alone, which only Linux has.
package memfile

import (
	"errors"
	"os"
)

// New returns errors.ErrUnsupported.
func New(string) (*os.File, error) { return nil, errors.ErrUnsupported }
