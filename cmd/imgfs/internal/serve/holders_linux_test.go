package serve

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestSweepLeft: what holders left of mounts that are gone is removed, and nothing else.
func TestSweepLeft(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	dir := filepath.Join(run, "imgfs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0-1000001.gone", "note.gone", "0-x.gone", "0-1.gone.old"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"0-1000001.holder", "0-1000002.holder"} {
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.SetUnlinkOnClose(false)
		if name == "0-1000001.holder" {
			l.Close() // as if it had been killed
		}
	}
	SweepLeft(t.Context())
	var left []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"0-1.gone.old", "0-1000002.holder", "0-x.gone", "note.gone"}; !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
}
