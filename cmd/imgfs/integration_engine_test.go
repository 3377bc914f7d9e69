//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestMountEngine: a mount for an engine, which has no attributes, says all that others say,
// to those that others say it to, and can be killed and upgraded.
func TestMountEngine(t *testing.T) {
	testenv.Slow(t)
	need(t, "getfattr")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, flags := range [][]string{{"-o", "engine"}, {"--engine", "--no-wait", "--layers=2"}} {
			dir := s.mount(image, flags...)
			check := func(when string) {
				t.Helper()
				r := s.finish(s.program("getfattr", "--absolute-names", "-n", "user.imgfs.layer", filepath.Join(dir, "noise")))
				if !strings.Contains(r.stderr, "not supported") {
					t.Errorf("%q, %s: getfattr says %s%s", flags, when, r.stdout, r.stderr)
				}
				r = s.finish(s.program("getfattr", "--absolute-names", "-n", serve.StatsAttr, dir))
				if !strings.Contains(r.stderr, "not supported") {
					t.Errorf("%q, %s: the kernel asks for attributes on: %s%s", flags, when, r.stdout, r.stderr)
				}
				if m := s.stats(dir); m.Image != image || len(m.Layers) < 2 {
					t.Errorf("%q, %s: stats are %+v", flags, when, m)
				}
				if r := s.ok("ps"); !strings.Contains(r.stdout, dir) || !strings.Contains(r.stdout, serve.HealthOK) {
					t.Errorf("%q, %s: ps says\n%s", flags, when, r.stdout)
				}
			}
			s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
			check("mounted")
			s.killed(dir)
			check("killed")
			other := anotherImgfs(t)
			s.upgrade(other, dir)
			check("upgraded")
			s.isOf(dir, other)
			if r := s.ok("stats", "--paths", dir); !strings.Contains(r.stdout, "container engine") {
				t.Errorf("%q: stats --paths say\n%s", flags, r.stdout)
			}
			s.ok("umount", dir)
			s.endSoon(dir)
		}
	})
}

// TestEngineAskedByOthers: another user is told nothing of a mount for an engine.
func TestEngineAskedByOthers(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mount(image, "-o", "engine,allow_other")
	other := sandboxOf(t, otherUser(t))
	for range 2 {
		other.fails(1, []string{"no permission to ask a mount of root"}, "stats", dir)
		if r := other.finish(other.program("ls", "-l", dir)); r.code != 0 { // which asks for attributes
			t.Errorf("ls: %s", r.stderr)
		}
	}
	if m := s.stats(dir); m.Image != image {
		t.Errorf("root is told %+v", m)
	}
	s.umount(dir)
}
