package blobs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// openToAll lets all users read what is in a directory.
func openToAll(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		mode := fs.FileMode(0o644)
		if err == nil && e.IsDir() {
			mode = 0o755
		}
		return errors.Join(err, os.Chmod(path, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// treeOf returns a line for all that there is below a directory: name, mode, owner,
// and what is in files.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = digest.FromBytes(data).Encoded()[:12]
		}
		fmt.Fprintln(&b, path, info.Mode(), info.Sys().(*syscall.Stat_t).Uid, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// regular returns the names of the regular files below a directory.
func regular(t *testing.T, dir string) (names []string) {
	t.Helper()
	inv, err := directory.Walk(cachetest.FilesAt(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range inv.Files {
		names = append(names, f.Name)
	}
	return names
}
