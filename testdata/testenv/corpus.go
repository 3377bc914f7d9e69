package testenv

import (
	"os"
	"path/filepath"
	"testing"
)

// Shared returns the path of a file in $IMGFS_SHARED, a folder of images and
// archives that others made, which is too big for the repository. By default it
// is the folder "shared" beside the repository. The file may be missing.
func Shared(elem ...string) string {
	shared := os.Getenv("IMGFS_SHARED")
	if shared == "" {
		shared = filepath.Join(filepath.Dir(moduleRoot()), "shared")
	}
	return filepath.Join(append([]string{shared}, elem...)...)
}

// Image returns the path of an image in corpora/images of the shared folder. The
// test is skipped if there is no such folder.
func Image(t testing.TB, name string) string {
	t.Helper()
	images := Shared("corpora", "images")
	if _, err := os.Stat(images); err != nil {
		t.Skipf("IMGFS_SHARED names no folder of images that others made: %v", err)
	}
	return filepath.Join(images, filepath.FromSlash(name))
}

// Foreign returns the path of an OCI layout in corpora/foreign of the shared folder:
// an image with indexes as other programs write them. The test is skipped if there
// is no such folder.
func Foreign(t testing.TB, name string) string {
	t.Helper()
	foreign := Shared("corpora", "foreign")
	if _, err := os.Stat(foreign); err != nil {
		t.Skipf("IMGFS_SHARED names no folder of images with indexes of others: %v", err)
	}
	return filepath.Join(foreign, filepath.FromSlash(name))
}

// moduleRoot returns the directory of go.mod above the test's, "" for none.
func moduleRoot() string {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return ""
}
