//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

func TestCat(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	big := noiseText(5<<20 + 17)
	sparse := strings.Repeat("\x00", 3<<20) + "middle" + strings.Repeat("\x00", 1<<20)
	image, _ := publish(t, reg, small, func(a *labimage.Archive) error { return a.File("big", big) }, func(a *labimage.Archive) error {
		return a.Sparse("sparse", int64(len(sparse)), labimage.Chunk{Off: 3 << 20, Data: "middle"}, labimage.Chunk{Off: int64(len(sparse))})
	})
	cache := t.TempDir()
	for _, c := range []struct {
		name   string
		paths  []string
		want   string
		errors []string // the lines after "imgfs: IMAGE: "
	}{
		{"a file", []string{"/etc/os-release"}, "NAME=small\n", nil},
		{"without a slash", []string{"etc/os-release"}, "NAME=small\n", nil},
		{"symlinks", []string{"/os-release", "/conf/os-release"}, "NAME=small\nNAME=small\n", nil},
		{"the same twice", []string{"/etc/os-release", "/etc/os-release"}, "NAME=small\nNAME=small\n", nil},
		{"empty", []string{"/etc/.hidden"}, "", nil},
		{"big", []string{"/big"}, big, nil},
		{"sparse", []string{"/sparse"}, sparse, nil},
		{"some missing", []string{"/no", "/etc/os-release", "/etc/no"}, "NAME=small\n", []string{"/no: no such file or directory", "/etc/no: no such file or directory"}},
		{"no files", []string{"/etc", "/fifo", "/dangling", "/big/x", "/big/"}, "",
			[]string{"/etc: is a directory", "/fifo: not a regular file", "/dangling: no such file or directory", "/big/x: not a directory", "/big/: not a directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := invoke(t, append([]string{"cat", "-q", "--cache-dir", cache, image}, c.paths...)...)
			if r.stdout != c.want {
				t.Errorf("cat %q: got %d bytes, want %d, or others", c.paths, len(r.stdout), len(c.want))
			}
			var want strings.Builder
			for _, e := range c.errors {
				want.WriteString("imgfs: " + image + ": " + e + "\n")
			}
			if r.stderr != want.String() || (r.code != cli.ExitOK) != (c.errors != nil) || r.code == cli.ExitUsage {
				t.Errorf("cat %q: got exit code %d and\n%swant\n%s", c.paths, r.code, r.stderr, want.String())
			}
		})
	}
}

// TestCatWrongBytes has a registry that changes a layer after it was indexed,
// and a cache that has lost it.
func TestCatWrongBytes(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	cache := t.TempDir()
	succeed(t, "index", "--cache-dir", cache, image)
	if err := os.RemoveAll(filepath.Join(cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	reg.Inject(registrytest.Blob, registrytest.Always(registrytest.FlipBit()))
	checkRefusal(t, invoke(t, "cat", "--cache-dir", cache, image, "/etc/os-release"), cli.ExitFailure, []string{image + ": /etc/os-release: layer sha256:"}, "nothing of it was kept")
	reg.Inject(registrytest.Blob, nil)
	if got, want := succeed(t, "cat", "--cache-dir", cache, image, "/etc/os-release"), "NAME=small\n"; got != want {
		t.Errorf("after the registry was mended: got %q, want %q", got, want)
	}
}
