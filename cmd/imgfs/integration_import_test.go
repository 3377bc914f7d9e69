//go:build linux

package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

var beforeEpoch = regexp.MustCompile(`mtime=-[0-9.]+`)

// archivesOf calls test with a tar that imgfs wrote, and with the dump of what umoci
// unpacks of the same image, but for the root, which the tar does not have.
func archivesOf(t *testing.T, test func(t *testing.T, archive string, want dump)) {
	t.Helper()
	for name, layout := range copiedLayouts(t) {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			archive := filepath.Join(s.dir, "a.tar")
			s.ok("tar", "-o", archive, "oci:"+layout+":"+labimage.Tag)
			want := withoutRoot(dumpOf(t, thisUser(), unpackLayout(t, layout)))
			for path, line := range want { // neither has times before 1970
				want[path] = beforeEpoch.ReplaceAllString(line, "mtime=0.000000000")
			}
			test(t, archive, want)
		})
	}
}

// TestPodmanImport: what podman mounts of a tar that it imported is the unpacked tree.
func TestPodmanImport(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	need(t, "podman")
	archivesOf(t, func(t *testing.T, archive string, want dump) {
		root, run := publicDir(t), publicDir(t)
		t.Cleanup(func() { _ = unix.Unmount(filepath.Join(root, "vfs"), unix.MNT_DETACH) })
		podman := func(args ...string) string {
			t.Helper()
			// stderr has what podman says of its progress.
			cmd := exec.CommandContext(t.Context(), "podman", append([]string{"--root", root, "--runroot", run, "--storage-driver", "vfs", "--log-level", "error"}, args...)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("podman %q: %v\n%s", args, err, &stderr)
			}
			return strings.TrimSpace(string(out))
		}
		podman("import", "--quiet", archive, "localhost/imported:v1")
		got := withoutRoot(dumpOf(t, thisUser(), podman("image", "mount", "localhost/imported:v1")))
		compare(t, "podman", got, "umoci", want)
		podman("image", "unmount", "localhost/imported:v1")
	})
}

// TestDockerImport: what docker unpacks of a tar that it imported is the unpacked tree.
func TestDockerImport(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("dockerd is not installed")
	}
	d := startDaemon(t, "dockerd", dockerd)
	archivesOf(t, func(t *testing.T, archive string, want dump) {
		f, err := os.Open(archive)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d.ask("POST", "/images/create?fromSrc=-&repo=imported&tag=v1", f, io.Discard)
		var said strings.Builder
		d.ask("GET", "/images/imported:v1/json", nil, &said)
		var image struct {
			GraphDriver struct{ Data struct{ UpperDir string } }
		}
		if err := json.Unmarshal([]byte(said.String()), &image); err != nil {
			t.Fatal(err)
		}
		dir := image.GraphDriver.Data.UpperDir
		if dir == "" {
			t.Skip("docker does not say where the tree of the image is")
		}
		compare(t, "docker", withoutRoot(dumpOf(t, thisUser(), dir)), "umoci", want)
	})
}
