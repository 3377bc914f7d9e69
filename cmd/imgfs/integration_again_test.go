//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// readyLimit is how long a mount may take that has all it needs. What is
// promised is 0.5 s, and a quiet machine takes 0.1 s; the rest is for a busy
// one, which needs long even to say the version of imgfs, a hundredth of a
// second on a quiet one.
func readyLimit(s *sandbox) time.Duration {
	return max(2*time.Second, 40*s.ok("version").took)
}

// TestMountAgain mounts with a cache that has everything: of the registry it
// wants to know what the tag means, and without it, it goes on.
func TestMountAgain(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	l := newLab(t)
	p := newProxy(t, l.host)
	s := newSandbox(t)
	image := p.host + "/" + goTree
	_, manifest := l.manifest(t, goTree)
	byDigest := image + "@" + manifest.String()

	dir := s.mount(image)
	if asked := p.asked(); asked["GET blobs"] == 0 {
		t.Fatalf("the first mount asks for %v: the proxy does not count", asked)
	}
	want := dumpOf(t, s.account, dir)
	s.umount(dir)
	p.asked()

	mount := func(image string, words ...string) (dir string) {
		t.Helper()
		dir = s.mountpoint()
		r := s.ok("mount", image, dir)
		t.Logf("ready after %v: %s", r.took, r.stdout)
		if limit := readyLimit(s); r.took > limit {
			t.Errorf("mounting %s took %v, want less than %v", image, r.took, limit)
		}
		for _, w := range words {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("mounting %s: stderr has no %q:\n%s", image, w, r.stderr)
			}
		}
		if len(words) == 0 && strings.ReplaceAll(r.stderr, rootIsTold, "") != "" {
			t.Errorf("mounting %s: stderr is not empty:\n%s", image, r.stderr)
		}
		return dir
	}
	asks := func(want map[string]int) {
		t.Helper()
		if got := p.asked(); !maps.Equal(got, want) {
			t.Errorf("requests: %v, want %v", got, want)
		}
	}
	s.umount(mount(image))
	// The first finds out that a registry on loopback speaks plain HTTP.
	asks(map[string]int{"GET /v2/": 1, "HEAD manifests": 1})
	s.umount(mount(byDigest))
	asks(nil)

	p.stop()
	s.umount(mount(byDigest))
	dir = mount(image+":"+labimage.Tag, "the tag could not be checked", "as last seen")
	compare(t, "offline", dumpOf(t, s.account, dir), "first", want)
}

// TestMountTwiceAtOnce has two commands mount one image at the same moment,
// with one cache that is empty.
func TestMountTwiceAtOnce(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	l := newLab(t)
	s := newSandbox(t)
	dirs := []string{s.mountpoint(), s.mountpoint()}
	errs := make(chan error)
	for _, dir := range dirs {
		cmd := s.command("mount", l.host+"/"+goTree, dir)
		go func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				errs <- fmt.Errorf("%q: %w\n%s", cmd.Args, err, out)
				return
			}
			errs <- nil
		}()
	}
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Fatal(err)
	}
	compare(t, "one", dumpOf(t, s.account, dirs[0]), "other", dumpOf(t, s.account, dirs[1]))
	s.umount(dirs[0])
	s.umount(dirs[1])
	if left := files(t, filepath.Join(s.cache, "tmp")); len(left) > 0 {
		t.Errorf("left in the cache: %q", left)
	}
}

// files returns the paths of all files below a directory, which need not be.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !d.IsDir() {
			paths = append(paths, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestLocalSources mounts the same image from every kind of place, and finds
// the same tree.
func TestLocalSources(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	l := newLab(t)
	s := newSandbox(t)
	places := map[string]string{"oci": l.layouts[zoo] + ":" + labimage.Tag}
	for transport, flag := range map[string]string{"oci-archive": "--preserve-digests", "docker-archive": "--format=v2s2"} {
		file := filepath.Join(s.dir, transport+".tar")
		if err := skopeoCopy("oci:"+places["oci"], transport+":"+file+":lab:v1", flag); err != nil {
			t.Fatal(err)
		}
		places[transport] = file
	}
	want := dumpOf(t, s.account, s.mount(l.host+"/"+zoo))
	for _, transport := range slices.Sorted(maps.Keys(places)) {
		t.Run(transport, func(t *testing.T) {
			s := newSandbox(t)
			// The daemon has another working directory.
			path, err := filepath.Rel(s.dir, places[transport])
			if err != nil {
				t.Fatal(err)
			}
			dir := s.mount(transport + ":" + path)
			compare(t, transport, dumpOf(t, s.account, dir), "registry", want)
			s.umount(dir)
		})
	}
}
