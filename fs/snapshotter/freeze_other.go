//go:build !linux

package snapshotter

import (
	"errors"
	"os"
)

// memoryFile fails: only Linux has files that are in memory alone, as it has overlays.
func memoryFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }
