//go:build linux

package main

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// bytesBelow returns how many bytes the files below some directories have.
func bytesBelow(t *testing.T, dirs ...string) (n int64) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				n += info.Size()
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return n
}

// readAll returns what a program prints.
func readAll(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	return string(out), err
}

// TestReadInPlace: of layouts and archives nothing is copied into the cache but indexes,
// whatever is read and however often; but files of compressed layers are kept decoded,
// as those of any image.
func TestReadInPlace(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	s := newSandbox(t)
	big := noiseText(2 << 20)
	layer := func(a *labimage.Archive) error { return a.File("big", big) }
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, small, layer); err != nil {
		t.Fatal(err)
	}
	oci := writeFile(t, filepath.Join(t.TempDir(), "oci.tar"), packed(t, layout, ""))
	docker := writeFile(t, filepath.Join(t.TempDir(), "docker.tar"), saved(t, small, layer))
	for _, c := range []struct {
		name, stdin string
		plain       bool // the layers are
	}{
		{"oci:" + layout, "", false},
		{"oci-archive:" + oci, "", false},
		{"docker-archive:" + docker, "", true},
		{"-", oci, false},
		{"-", docker, true},
	} {
		t.Run(c.name+c.stdin, func(t *testing.T) {
			cache := t.TempDir()
			run := func(args ...string) {
				t.Helper()
				var stdin io.Reader
				if c.stdin != "" {
					stdin = opened(t, c.stdin)
				}
				if r := s.in(t).reading(stdin, append([]string{"--cache-dir", cache}, args...)...); r.code != 0 {
					t.Fatalf("%q: exit code %d\n%s", args, r.code, r.stderr)
				}
			}
			run("ls", "-R", c.name)
			for range 4 {
				run("cat", c.name, "/big")
			}
			dir := s.mountpoint()
			run("mount", c.name, dir)
			for range 8 {
				got, err := readAll("dd", "if="+filepath.Join(dir, "big"), "iflag=direct", "bs=64k", "status=none")
				if err != nil || got != big {
					t.Fatalf("read %d bytes of the mount, error %v", len(got), err)
				}
			}
			if n := bytesBelow(t, filepath.Join(cache, "blobs")); n != 0 {
				t.Errorf("%d bytes of blobs were copied", n)
			}
			if n := bytesBelow(t, filepath.Join(cache, "contents")); n != 0 && c.plain {
				t.Errorf("%d bytes of files of plain layers were copied", n)
			}
			if n := bytesBelow(t, filepath.Join(cache, "tmp")); n != 0 {
				t.Errorf("%d bytes of temporary files", n)
			}
			s.umount(dir)
			if n := bytesBelow(t, filepath.Join(cache, "indexes")); n == 0 || n > 100_000 {
				t.Errorf("%d bytes of indexes", n)
			}
			if used := bytesBelow(t, cache); c.plain && used > int64(len(big))/4 {
				t.Errorf("the cache has %d bytes, of an image of %d", used, len(big))
			}
		})
	}
	if strings.Contains(s.ok("cache", "ls").stdout, "temporary files") {
		t.Error("temporary files are left")
	}
}
