//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestMountEqualsPodman compares the mount of a big image with what podman
// makes of it, in the output of the lab's treedump.py: 88,000 files in ten
// layers. It takes minutes, and wants an OCI layout of the image, which
// IMGFS_LAB_NODE names.
func TestMountEqualsPodman(t *testing.T) {
	layout := os.Getenv("IMGFS_LAB_NODE")
	if layout == "" {
		t.Skip("IMGFS_LAB_NODE names no OCI layout")
	}
	treedump := testenv.Shared("lab", "treedump.py")
	if _, err := os.Stat(treedump); err != nil {
		t.Skip(err)
	}
	needFUSE(t)
	needRoot(t)
	need(t, "podman", "python3")
	r := newRegistry(t)
	if err := r.push(layout, "library/node:latest"); err != nil {
		t.Fatal(err)
	}
	image := r.host + "/library/node:latest"

	storage := publicDir(t)
	podman := func(args ...string) string {
		t.Helper()
		places := []string{"--root", filepath.Join(storage, "root"), "--runroot", filepath.Join(storage, "run"), "--tmpdir", filepath.Join(storage, "tmp")}
		out, err := exec.CommandContext(t.Context(), "podman", append(places, args...)...).Output()
		if err != nil {
			t.Fatalf("podman %q: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	podman("pull", "--quiet", "--tls-verify=false", image)
	want := treeLines(t, treedump, podman("image", "mount", image))
	podman("image", "umount", "--force", image)

	s := newSandbox(t)
	dir := s.mount(image)
	got := treeLines(t, treedump, dir)
	s.umount(dir)
	again := s.ok("mount", image, dir)
	t.Logf("mounted again: ready after %v, %d lines", again.took, len(got))
	if limit := readyLimit(s); again.took > limit {
		t.Errorf("mounting again took %v, want less than %v", again.took, limit)
	}
	s.umount(dir)
	bad := 0
	for _, lines := range [][2][]string{{got, want}, {want, got}} {
		for _, line := range lines[0] {
			if _, ok := slices.BinarySearch(lines[1], line); !ok && bad < 20 {
				t.Errorf("only one side has %q", line)
				bad++
			}
		}
	}
	if len(got) != len(want) || len(got) < 80_000 {
		t.Errorf("%d lines, podman has %d", len(got), len(want))
	}
}

// treeLines returns what treedump.py prints of a directory, sorted, without
// the line of the directory itself, which no layer lists.
func treeLines(t *testing.T, treedump, dir string) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(tool(t, "python3", treedump, dir), "\n"), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "/\t") })
	slices.Sort(lines)
	return lines
}
