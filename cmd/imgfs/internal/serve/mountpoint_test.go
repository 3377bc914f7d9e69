package serve

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// alonePlace has directories to mount on made below a directory of the test's.
func alonePlace(t *testing.T) (base string) {
	run, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", run)
	return filepath.Join(run, "imgfs")
}

// TestMakeMountpointAtOnce makes and removes directories of one name from several sides:
// nobody loses what he has made, and nothing is left.
func TestMakeMountpointAtOnce(t *testing.T) {
	base := alonePlace(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 25 {
				m, err := MakeMountpoint(t.Context(), "image", false)
				if err != nil {
					t.Error(err)
					return
				}
				if !isAt(m.lock, m.Dir) {
					t.Errorf("%s is gone, or another directory", m.Dir)
				}
				m.Remove()
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
		t.Errorf("left are %v (%v)", left, err)
	}
}

// TestLockMade has something mounted where a directory was made: it is another one.
func TestLockMade(t *testing.T) {
	const mounted = "/proc"
	if dir, err := openMade(mounted); err != nil || isBeside(dir, "/") {
		t.Skipf("%s is no mount that can be opened: %v", mounted, err)
	}
	if m, err := lockMade(mounted); err == nil {
		t.Errorf("%s counts as made here", m.Dir)
		m.lock.Close()
	}
}
