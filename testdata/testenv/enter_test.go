package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeepsOut(t *testing.T) {
	top := t.TempDir()
	closed := filepath.Join(top, "closed")
	dir := filepath.Join(closed, "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := keepsOut(dir)
	want, _ := filepath.EvalSymlinks(closed)
	if got != want || err != nil {
		t.Errorf("keepsOut() = %q, %v; want %q", got, err, want)
	}
	if text := cannotEnter(got); !strings.Contains(text, want) || !strings.Contains(text, "TMPDIR") {
		t.Errorf("it says %q", text)
	}
	if got, err := keepsOut("/"); got != "" || err != nil {
		t.Errorf("keepsOut(/) = %q, %v", got, err)
	}
}
