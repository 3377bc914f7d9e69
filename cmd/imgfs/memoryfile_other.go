//go:build !linux

package main

import (
	"errors"
	"os"
)

// memoryFile fails: only Linux has files that are in memory alone, as it has mounts.
func memoryFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }
