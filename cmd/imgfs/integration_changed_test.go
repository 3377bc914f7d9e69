//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// readAnew reads a file of a mount, and not from the kernel's pages.
func readAnew(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// flipAll changes a byte of each 4 KiB of the first n of a file, whatever its mode.
func flipAll(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for off := int64(17); off < n; off += 4096 {
		flipByte(t, path, off)
	}
}

// TestCacheChangesUnderMount has chunks, kept files and indexes change on disk
// that a mount has looked at before. Readers get the image's bytes.
func TestCacheChangesUnderMount(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	const size, most = 768 << 10, 40 << 20
	want, other := noiseText(size), noiseText(most)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg,
		func(a *labimage.Archive) error { return a.File("noise", want) },
		func(a *labimage.Archive) error { return a.File("other", other) }) // more than decoded pieces may take
	s := newSandbox(t)
	var rows []indexRow
	if err := json.Unmarshal([]byte(s.ok("index", "--json", image).stdout), &rows); err != nil {
		t.Fatal(err)
	}
	layer := rows[0]
	check := func(t *testing.T, dir string) {
		t.Helper()
		if got := readAnew(t, filepath.Join(dir, "noise")); got != want {
			t.Errorf("wrong bytes: %x, want %x", sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want)))
		}
	}

	t.Run("chunks", func(t *testing.T) {
		s := s.in(t)
		dir := s.mount(image, "--passthrough=off")
		check(t, dir)
		flipAll(t, cacheFile(s.cache, "blobs", layer.Digest), layer.Size)
		if got := readAnew(t, filepath.Join(dir, "other")); got != other {
			t.Error("wrong bytes in another file")
		}
		check(t, dir)
		if total := s.stats(dir).Total; total.Errors != 0 || total.Bad == 0 {
			t.Errorf("%+v", total)
		}
		s.umount(dir)
	})
	t.Run("index", func(t *testing.T) {
		s := s.in(t)
		dir := s.mount(image, "--passthrough=off")
		index := cacheFile(s.cache, "indexes", layer.Digest)
		st, err := os.Stat(index)
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(400); off < st.Size(); off += 32 { // in every section
			flipByte(t, index, off)
		}
		check(t, dir)
		check(t, dir)
		s.umount(dir)
	})
	for _, flag := range []string{"off", "on"} {
		t.Run("kept file, passthrough "+flag, func(t *testing.T) {
			s := s.in(t)
			kept := cacheFile(s.cache, "contents", digest.FromString(want))
			if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(kept, []byte(want), 0o400); err != nil {
				t.Fatal(err)
			}
			s.dropBlobs()
			dir := s.mountpoint()
			if r := s.run("mount", "--passthrough="+flag, image, dir); r.code != 0 && flag == "on" {
				t.Skipf("no passthrough here: %s", r.stderr)
			} else if r.code != 0 {
				t.Fatal(r.stderr)
			}
			check(t, dir)
			if n := s.stats(dir).Total.Fetched; n != 0 {
				t.Errorf("%d bytes were fetched of a file that is kept", n)
			}
			flipAll(t, kept, size)
			check(t, dir)
			check(t, dir)
			if _, err := os.Stat(kept); !os.IsNotExist(err) {
				t.Errorf("what was wrong is still there: %v", err)
			}
			s.umount(dir)
		})
	}
}
