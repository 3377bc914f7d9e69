package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// OthersCanEnter is for tests in which other users than root use what lies below
// a directory. If it, or one above it, keeps them out, the test is skipped, or
// fails where CI=true, and says which directory that is.
func OthersCanEnter(t testing.TB, dir string) {
	t.Helper()
	closed, err := keepsOut(dir)
	switch {
	case err != nil:
		t.Fatal(err)
	case closed == "":
	case os.Getenv("CI") == "true":
		t.Fatal(cannotEnter(closed))
	default:
		t.Skip(cannotEnter(closed))
	}
}

func cannotEnter(dir string) string {
	return fmt.Sprintf("other users cannot enter %s, and the test needs a temporary directory that they can: set TMPDIR (it is %q) to one, or chmod o+x %s",
		dir, os.Getenv("TMPDIR"), dir)
}

// keepsOut returns which directory, of dir and those above it, only some users can
// enter; "" for none.
func keepsOut(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return "", err
		}
		if st.Mode()&0o001 == 0 {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", nil
		}
	}
}
