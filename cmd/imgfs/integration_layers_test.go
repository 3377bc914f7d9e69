//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestMountLayers: with --layers the lowest layers are mounted, and stay so when another
// process, or another program, serves the mount.
func TestMountLayers(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, c := range []struct {
			flags      []string
			mounted    int
			there, not []string
		}{
			{[]string{"--layers", "1"}, 1, []string{"etc/os-release"}, []string{"noise", "last"}},
			{[]string{"-o", "layers=2"}, 2, []string{"etc/os-release", "noise"}, []string{"last"}},
			{[]string{"--layers=3"}, 3, []string{"etc/os-release", "noise", "last"}, nil},
			{[]string{"--no-wait", "--layers=2"}, 2, []string{"noise"}, []string{"last"}},
		} {
			dir := s.mount(image, c.flags...)
			check := func(when string) {
				t.Helper()
				for _, name := range c.there {
					if _, err := s.program("cat", filepath.Join(dir, name)).Output(); err != nil {
						t.Errorf("%q, %s: %s: %v", c.flags, when, name, err)
					}
				}
				for _, name := range c.not {
					if r := s.finish(s.program("stat", filepath.Join(dir, name))); !strings.Contains(r.stderr, "No such file") {
						t.Errorf("%q, %s: %s is there: %s%s", c.flags, when, name, r.stdout, r.stderr)
					}
				}
				of := map[bool]int{true: 3}[c.mounted < 3]
				if m := s.stats(dir); len(m.Layers) != c.mounted || m.OfLayers != of {
					t.Errorf("%q, %s: stats have %d of %d layers, want %d of %d", c.flags, when, len(m.Layers), m.OfLayers, c.mounted, of)
				}
			}
			check("mounted")
			if r := s.ok("stats", dir); strings.Contains(r.stdout, ", the lowest ") != (c.mounted < 3) {
				t.Errorf("%q: stats say\n%s", c.flags, r.stdout)
			}
			s.killed(dir)
			check("killed")
			other := anotherImgfs(t)
			s.upgrade(other, dir)
			check("upgraded")
			s.isOf(dir, other)
			if r := s.ok("ps"); !strings.Contains(r.stdout, dir) {
				t.Errorf("ps says %s", r.stdout)
			}
			s.ok("umount", dir)
			s.endSoon(dir)
		}
	})
	s := newSandbox(t)
	for _, c := range []struct {
		layers, says string
		code         int
	}{
		{"4", "there is no layer 4: it has 3", 1}, {"0", "it is a number of layers", 2}, {"-1", "it is a number of layers", 2}, {"two", "it is a number of layers", 2},
	} {
		s.fails(c.code, []string{c.says}, "mount", "--layers="+c.layers, image, s.mountpoint())
		s.fails(c.code, []string{c.says}, "mount", "-o", "layers="+c.layers, "oci:"+layout+":latest", s.mountpoint())
	}
}

// TestMountLayersOfArchive: a successor shows as many layers of an archive that is gone.
func TestMountLayersOfArchive(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	_, layout := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	archive := filepath.Join(s.dir, "image.tar")
	tool(t, "tar", "-C", layout, "-cf", archive, ".")
	dir := s.mount("oci-archive:"+archive, "--layers=2")
	if err := os.Remove(archive); err != nil {
		t.Fatal(err)
	}
	s.killed(dir)
	s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
	if _, err := os.Stat(filepath.Join(dir, "last")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the uppermost layer is there: %v", err)
	}
	s.umount(dir)
}
