//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestCorruptLayer mounts from a docker-registry whose disk has gone bad.
func TestCorruptLayer(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	l := newLab(t)
	r := newRegistry(t)
	if err := r.push(l.layouts[zoo], zoo+":latest"); err != nil {
		t.Fatal(err)
	}
	manifest, _ := l.manifest(t, zoo)
	layer := manifest.Layers[0]
	hex := layer.Digest.Encoded()
	blob := filepath.Join(r.data, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
	good, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		return bad
	}
	s := newSandbox(t)
	for _, c := range []struct {
		name, words string
		bad         []byte
	}{
		{"a bit of gzip's header, which changes no file", "its digest is sha256:", flip(4)},
		{"a bit in the middle", "its digest is sha256:", flip(len(good) / 2)},
		{"a bit of the last byte", "its digest is sha256:", flip(len(good) - 1)},
		{"the end is missing", "bytes instead of", good[:len(good)/2]},
		{"there is too much", "bytes instead of", append(bytes.Clone(good), 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(blob, c.bad, 0o666); err != nil {
				t.Fatal(err)
			}
			s := s.in(t)
			dir := s.mountpoint()
			got := s.fails(1, []string{"layer " + layer.Digest.String() + ": ", c.words}, "mount", r.host+"/"+zoo, dir)
			if got.stdout != "" {
				t.Errorf("stdout is %q, want nothing", got.stdout)
			}
			s.gone(dir)
			for _, path := range files(t, s.cache) {
				if strings.Contains(path, hex) || filepath.Base(filepath.Dir(path)) == "tmp" {
					t.Errorf("left in the cache: %s", path)
				}
			}
		})
	}
	if err := os.WriteFile(blob, good, 0o666); err != nil {
		t.Fatal(err)
	}
	s.umount(s.mount(r.host + "/" + zoo))
}

// TestCorruptRange has the registry answer wrongly when the image is mounted
// already and a part of a layer is fetched again.
func TestCorruptRange(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	l := newLab(t)
	r := registrytest.New(t, nil)
	if err := r.PushLayout(l.layouts[zoo], zoo); err != nil {
		t.Fatal(err)
	}
	manifest, _ := l.manifest(t, zoo)
	s := newSandbox(t)
	image := r.Host() + "/" + zoo
	dir := s.mount(image)
	want := dumpOf(t, s.account, dir)
	s.umount(dir)
	if err := os.RemoveAll(filepath.Join(s.cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	r.Forget()
	dir = s.mount(image, "--profile=off") // else the part would be fetched before
	if n := r.Count(registrytest.Blob); n != 0 {
		t.Errorf("mounting with the indexes kept asked for blobs %d times", n)
	}
	log := filepath.Join(s.cache, "imgfs.log")

	r.Inject(registrytest.Blob, registrytest.Always(registrytest.FlipBit()))
	name := filepath.Join(dir, "content/page")
	cat := s.program("cat", name)
	if out, err := cat.Output(); err == nil || len(out) > 0 {
		t.Errorf("cat %s: %v, %q..., want an error and no byte", name, err, out[:min(len(out), 20)])
	} else if status := new(exec.ExitError); !errors.As(err, &status) || !strings.Contains(string(status.Stderr), "Input/output error") {
		t.Errorf("cat %s: %v, want EIO", name, err)
	}
	if r.Count(registrytest.Blob) == 0 {
		t.Error("the registry was not asked")
	}
	text := readFile(t, log)
	for _, w := range []string{dir, "/content/page", manifest.Layers[0].Digest.String(), "digest mismatch"} {
		if !strings.Contains(text, w) || strings.Count(text, "\n") != 1 {
			t.Errorf("imgfs.log is %q, want one line with %q", text, w)
		}
	}

	r.Inject(registrytest.Blob, nil)
	compare(t, "mended", dumpOf(t, s.account, dir), "before", want)
	if again := readFile(t, log); again != text {
		t.Errorf("imgfs.log has got more lines: %s", again)
	}
	s.umount(dir)
}
