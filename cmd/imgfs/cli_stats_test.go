//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

func eventuallyMounted(dir string) bool {
	return eventually(20*time.Second, func() bool { return mounted(dir) })
}

// stats asks a mount for its stats, through imgfs.
func (s *sandbox) stats(path string) (m serve.Stats) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.ok("stats", "--json", path).stdout), &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// TestStats looks at the statistics of a mount, and who may see them.
func TestStats(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mount(image)
		got := s.stats(dir)
		if got.Image != image || got.Dir != dir || got.CacheDir != s.cache || got.PID != s.daemon(dir) || got.Offline || got.Prefetch.State != "off" ||
			len(got.Layers) != 3 || got.Platform == "" || time.Since(got.Since) > time.Minute || got.Manifest.Validate() != nil {
			t.Errorf("got %+v", got)
		}
		for _, p := range got.FastPaths {
			if p.Active != (p.Why == "") {
				t.Errorf("fast path %+v", p)
			}
		}
		if len(got.FastPaths) < 8 {
			t.Errorf("only the fast paths %+v", got.FastPaths)
		}
		for i, l := range got.Layers {
			if l.Verified != "whole" || l.Size == 0 || l.Cached != l.Size {
				t.Errorf("layer %d: got %+v, want it verified whole, and all of it cached", i, l)
			}
		}
		for _, path := range []string{dir + "/", dir + "/etc", dir + "/etc/os-release", filepath.Base(dir), filepath.Base(dir) + "/empty"} {
			if got := s.stats(path); got.Dir != dir {
				t.Errorf("stats of %s: got those of %s, want %s", path, got.Dir, dir)
			}
		}
		brief := s.ok("stats", dir).stdout
		if n := strings.Count(brief, "\n"); n != 11 || strings.Contains(brief, "LAYER") {
			t.Errorf("%d lines, want 11:\n%s", n, brief)
		}
		text := s.ok("stats", "--layers", "--files", "--paths", dir).stdout
		for _, words := range []string{brief, "image     " + image + "\n", "\ndigest    " + got.Manifest.String() + "\n", "\ndir       ", "\nsince ", fmt.Sprintf(" process %d, ", got.PID), "\nfetched ", "\nwasted ", "\nhits ", "\nreads ", "\nwaits ", "\nservers ",
			"\nFAST PATH ", "\nno-opendir ", "\nLAYER ", " whole ", show.ShortDigest(got.Layers[1].Digest)} {
			if !strings.Contains(text, words) {
				t.Errorf("there is no %q in\n%s", words, text)
			}
		}
		if who.uid == os.Geteuid() {
			list := make([]byte, 4096)
			if n, err := unix.Listxattr(dir, list); err != nil || strings.Contains(string(list[:n]), "imgfs") {
				t.Errorf("the attributes of the root are %q, error %v; want none of imgfs", list[:max(n, 0)], err)
			}
			value := make([]byte, serve.MaxStats)
			if n, err := unix.Getxattr(filepath.Join(dir, "etc"), serve.StatsAttr, value); err == nil {
				t.Errorf("a directory has stats: %q", value[:n])
			}
		}
		s.umount(dir)
	})
}

// TestMountChoices has the flags for fast paths.
func TestMountChoices(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, bad := range []string{"--passthrough=yes", "--io-uring", "--io-uring=On"} {
			if r := s.run("mount", bad, image, s.mountpoint()); r.code != cli.ExitUsage {
				t.Errorf("%s: exit code %d, want %d", bad, r.code, cli.ExitUsage)
			}
		}
		for _, c := range []struct{ flag, name string }{{"--passthrough", "passthrough"}, {"--io-uring", "io-uring"}} {
			dir := s.mount(image, c.flag+"=off")
			if p := pathNamed(t, s.stats(dir), c.name); p.Active || !strings.Contains(p.Why, "turned off") {
				t.Errorf("%s=off: %+v", c.flag, p)
			}
			s.umount(dir)
			dir = s.mountpoint()
			r := s.run("mount", c.flag+"=on", image, dir)
			if r.code != 0 {
				if who.uid == 0 && c.name == "passthrough" {
					t.Logf("not to be had here: %s", r.stderr)
				}
				if r.code != cli.ExitFailure || mounted(dir) || !strings.Contains(r.stderr, "mount "+dir+": no ") {
					t.Errorf("%s=on: exit code %d, mounted %v\n%s", c.flag, r.code, mounted(dir), r.stderr)
				}
				continue
			}
			if p := pathNamed(t, s.stats(dir), c.name); !p.Active {
				t.Errorf("%s=on: %+v", c.flag, p)
			}
			s.umount(dir)
		}
	})
}

func pathNamed(t *testing.T, m serve.Stats, name string) fusefs.FastPath {
	t.Helper()
	i := slices.IndexFunc(m.FastPaths, func(p fusefs.FastPath) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("no fast path %s in %+v", name, m.FastPaths)
	}
	return m.FastPaths[i]
}

// TestStatsRefuses asks what has no stats.
func TestStatsRefuses(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	plain := s.mountpoint()
	checkRefusal(t, s.run("stats", plain), cli.ExitFailure, []string{"stats " + plain + ": not an imgfs mount"}, "imgfs ps")
	checkRefusal(t, s.run("stats", "/proc"), cli.ExitFailure, []string{"stats /proc: not an imgfs mount"}, "imgfs ps")
	checkRefusal(t, s.run("stats", plain+"/no"), cli.ExitFailure, []string{"stats " + plain + "/no: "}, "")

	// What has been put on a ring for a process that is stopped cannot be taken
	// back, not even to be killed.
	dir := s.mount(image, "--io-uring=off", "--no-recover")
	pid := s.daemon(dir)
	list := func() cacheList {
		t.Helper()
		var l cacheList
		if err := json.Unmarshal([]byte(s.ok("cache", "ls", "--json").stdout), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := list().Images[0].Mounts; !slices.Equal(got, []string{dir}) {
		t.Errorf("mounted on %q, want %s", got, dir)
	}
	testenv.Stop(t, pid)
	if got := list().Images[0].Mounts; len(got) != 0 {
		t.Errorf("a process that does not answer: mounted on %q", got)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.waitGone(dir)
	checkRefusal(t, s.run("stats", dir), cli.ExitFailure, []string{"stats " + dir + ": ", "is dead"}, "imgfs umount "+dir)
	checkRefusal(t, s.run("stats", dir+"/etc"), cli.ExitFailure, []string{"stats " + dir + "/etc: ", "is dead"}, "imgfs umount "+dir)
	if got := list().Images[0].Mounts; len(got) != 0 {
		t.Errorf("a dead mount: mounted on %q", got)
	}
	s.umount(dir)
}

// TestCacheListMounts mounts an image twice, and another one with another
// cache.
func TestCacheListMounts(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s, other := newSandbox(t), newSandbox(t)
	dirs := []string{s.mount(image), s.mount(image)}
	other.mount(image)
	text := s.ok("cache", "ls").stdout
	if !strings.Contains(text, " now ") || !strings.Contains(text, strings.Join(dirs, ", ")+"\n") {
		t.Errorf("got\n%swant now, and %q", text, dirs)
	}
	s.umount(dirs[0])
	s.umount(dirs[1])
	if text = s.ok("cache", "ls").stdout; strings.Contains(text, " now ") {
		t.Errorf("unmounted: got\n%s", text)
	}
}

// TestPruneUnderMount takes everything away from a mount in use.
func TestPruneUnderMount(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mount(image)
	f, err := os.Open(filepath.Join(dir, "noise"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.ok("cache", "prune", "--all")
	if text, err := os.ReadFile(f.Name()); err != nil || string(text) != noiseText(3<<20) {
		t.Errorf("after cache prune --all: error %v, or other content", err)
	}
	var list cacheList
	if err := json.Unmarshal([]byte(s.ok("cache", "ls", "--json").stdout), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Images) != 1 || !slices.Equal(list.Images[0].Mounts, []string{dir}) || list.Images[0].Cached < 3<<20 || len(list.Other) > 0 {
		t.Errorf("after cache prune --all of what is mounted: got %+v", list)
	}
	f.Close()
	s.umount(dir)
}

// TestProvenance looks at the attributes that say where a file comes from.
func TestProvenance(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small, func(a *labimage.Archive) error { return a.File("last", "last\n") })
	s := newSandbox(t)
	for _, flags := range [][]string{nil, {"--provenance"}} {
		dir := s.mount(image, flags...)
		layer := s.stats(dir).Layers[1].Digest
		value := make([]byte, 4096)
		n, err := unix.Getxattr(filepath.Join(dir, "last"), "user.imgfs.layer", value)
		if err != nil || string(value[:n]) != layer.String() {
			t.Errorf("%q: user.imgfs.layer is %q, error %v, want %s", flags, value[:max(n, 0)], err, layer)
		}
		n, err = unix.Listxattr(filepath.Join(dir, "last"), value)
		if listed := strings.Contains(string(value[:max(n, 0)]), "user.imgfs.layer\x00"); err != nil || listed != (flags != nil) {
			t.Errorf("%q: the list is %q, error %v", flags, value[:max(n, 0)], err)
		}
		s.umount(dir)
	}
}
