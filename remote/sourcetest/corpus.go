package sourcetest

import (
	"os"
	"path/filepath"
	"testing"
)

// Corpus returns the path of name in the folder of images that others made,
// corpora/images of ../shared beside the repository or of $IMGFS_SHARED. It
// skips the test where that is absent.
func Corpus(t *testing.T, name string) string {
	t.Helper()
	shared := os.Getenv("IMGFS_SHARED")
	if shared == "" {
		shared = filepath.Join(filepath.Dir(moduleRoot(t)), "shared")
	}
	images := filepath.Join(shared, "corpora", "images")
	if _, err := os.Stat(images); err != nil {
		t.Skipf("the corpus of images is absent: %v", err)
	}
	return filepath.Join(images, filepath.FromSlash(name))
}

// moduleRoot returns the directory of go.mod above the test's.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("there is no go.mod above the test")
		}
		dir = parent
	}
}
