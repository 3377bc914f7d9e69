package blobcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// docs/cache-format.md, "The directory".
const (
	versionFile   = "version"
	versionPrefix = "imgfs cache "
	version       = 1

	blobsDir   = "blobs"
	metaDir    = "meta"
	refsDir    = "refs"
	indexesDir = "indexes" // of package layerindex
	imagesDir  = "images"
	claimsDir  = "claims"
	tmpDir     = "tmp"
)

// makeTree creates what is missing of a cache directory and checks the rest.
func makeTree(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dirError(dir, err)
	}
	marked, err := checkVersion(dir)
	if err != nil {
		return err
	}
	for _, sub := range []string{"", tmpDir, refsDir, blobsDir, blobsDir + "/sha256", metaDir, metaDir + "/sha256"} {
		path := filepath.Join(dir, sub)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return dirError(path, err)
		}
		if err := unix.Access(path, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
			return dirError(path, err)
		}
	}
	if marked {
		return nil
	}
	path := filepath.Join(dir, versionFile)
	text := versionPrefix + strconv.Itoa(version) + "\n"
	if err := writeFile(filepath.Join(dir, tmpDir), path, []byte(text)); err != nil {
		return dirError(path, err)
	}
	return nil
}

// dirError says in plain words why path cannot be used.
func dirError(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		// MkdirAll names the ancestor that it failed at.
		path, err = pe.Path, pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("cache directory %s is not writable: %w", path, err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("cache directory %s: %w", path, unix.ENOTDIR)
	}
	return fmt.Errorf("cache directory %s: %w", path, err)
}

// checkVersion refuses a directory of another format, and reports whether
// dir says its format. An empty file, which a crash of the machine may leave,
// says nothing.
func checkVersion(dir string) (bool, error) {
	path := filepath.Join(dir, versionFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return false, nil
	}
	if err != nil {
		return false, dirError(path, err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(data)), versionPrefix)
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case !ok || err != nil || n == 0:
		return false, fmt.Errorf("cache directory %s: file %s is not that of an imgfs cache", dir, versionFile)
	case n > version:
		return false, fmt.Errorf("cache directory %s has format %d, which is newer than this imgfs knows (%d)", dir, n, version)
	}
	return true, nil
}

// writeFile gives the file at path the content data, whole or not at all. It
// writes to a file in tmp, on the same file system, first.
func writeFile(tmp, path string, data []byte) error {
	f, err := createOwned(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.Write(data); err == nil {
		err = rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// rename moves a file into a directory that it creates if need be.
func rename(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// createOwned creates a file in tmp and locks it: while it is open, sweep
// leaves it alone.
func createOwned(tmp string) (*os.File, error) {
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.CreateTemp(tmp, "*")
		if err != nil {
			return nil, err
		}
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(f, f.Name()) {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			os.Remove(f.Name())
			return nil, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		// A sweep came between the file and its lock, and removes it.
	}
}

// sweep removes the files in tmp whose owner is gone. What it cannot remove
// it leaves to the next one.
func sweep(tmp string) {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			sweepFile(filepath.Join(tmp, e.Name()))
		}
	}
}

// sweepFile removes a file if nobody has its lock, and reports whether it did.
func sweepFile(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	// The name may have become that of another file, which has an owner.
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil && isAt(f, path) && os.Remove(path) == nil
}

// flock locks an open file. Closing it gives the lock back.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

// isAt reports whether the open file f is the one at path.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}
