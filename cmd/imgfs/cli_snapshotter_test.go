//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// TestSnapshotterPlaces: containerd, which is started elsewhere, is told whole paths, also of a
// socket that is written as its clients do.
func TestSnapshotterPlaces(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"unix:///run/x.sock": "/run/x.sock", "s.sock": here + "/s.sock"} {
		text := invoke(t, "snapshotter", "config", "--version", "2.4", "--address", address, "--root", "r", "containerd").stdout
		if !strings.Contains(text, `address = "`+want+`"`) || !strings.Contains(text, `root = "`+here+`/r"`) {
			t.Errorf("%s: got\n%s", address, text)
		}
	}
	for flag, says := range map[string]string{"--address=": "--address: the name", "--root=": "--root: the name", "--address=tcp://127.0.0.1:1": "tcp://127.0.0.1:1: it is the path"} {
		if r := invoke(t, "snapshotter", "config", "--version", "2.4", flag, "containerd"); r.code != cli.ExitUsage || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit code %d\n%s", flag, r.code, r.stderr)
		}
	}
}
