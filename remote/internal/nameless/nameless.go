// Package nameless makes temporary files without a name: they cannot be left
// behind, whatever becomes of the process.
package nameless

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

// Create makes a file without a name in a directory, if its disk looks as if
// it would take size bytes; 0 means that the size is not known. The error is an
// *fs.PathError.
func Create(dir string, size int64) (*os.File, error) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && size > beneath.Free(&st) {
		return nil, &fs.PathError{Op: "write to", Path: dir, Err: unix.ENOSPC}
	}
	if f, err := openNameless(dir); err == nil {
		return f, nil
	}
	return createUnlinked(dir)
}

// createUnlinked is Create for systems and file systems where a file has a name
// at first.
func createUnlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "imgfs-*")
	if err != nil {
		return nil, err
	}
	// Somebody who sweeps the directory may have been faster.
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Dir is where large temporary files lie: $TMPDIR, by default /var/tmp, since
// they are too large for a /tmp in memory.
func Dir() string {
	const large = "/var/tmp"
	if os.Getenv("TMPDIR") == "" {
		if info, err := os.Stat(large); err == nil && info.IsDir() {
			return large
		}
	}
	return os.TempDir()
}
