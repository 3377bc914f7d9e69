package nameless

import (
	"os"
	"testing"
)

// TestUnlinked: where a file has a name at first, it has none when it is used.
func TestUnlinked(t *testing.T) {
	dir := t.TempDir()
	f, err := createUnlinked(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("the directory has %v, %v", left, err)
	}
	if _, err := f.WriteAt([]byte("text"), 3); err != nil {
		t.Error(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != 7 || st.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", st, err)
	}
}
