//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSurviveCacheUnusable kills servers whose cache directory nobody may use any more: the
// next one goes on without, reads what is not held from the registry, and says so; and it
// uses the directory again when that is as it was.
func TestSurviveCacheUnusable(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"newer format": func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "version"), "imgfs cache 2\n") },
		"open to all": func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		},
		"a file": func(t *testing.T, dir string) {
			replaceBy(t, dir, func() error { return os.WriteFile(dir, []byte("none"), 0o600) })
		},
		"a link to nowhere": func(t *testing.T, dir string) {
			replaceBy(t, dir, func() error { return os.Symlink("/nowhere/at/all", dir) })
		},
		"somebody's home": func(t *testing.T, dir string) {
			replaceBy(t, dir, func() error {
				if err := os.Mkdir(dir, 0o700); err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(dir, "letter"), []byte("dear"), 0o600)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New(t, nil)
			image, _ := publish(t, reg, threeLayers()...)
			s := newSandbox(t)
			cache := filepath.Join(s.dir, "a-cache")
			dir := s.mount(image, "--cache-dir="+cache)
			want := s.finish(s.program("ls", "-lR", dir)).stdout
			spoil(t, cache)
			for range 2 {
				s.killed(dir)
				if got := s.finish(s.program("timeout", "20", "ls", "-lR", dir)); got.stdout != want || want == "" {
					t.Errorf("got %s, %s, want %s", got.stdout, got.stderr, want)
				}
				s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
			}
			if log := s.logOf(); strings.Contains(log, "a-cache") && !strings.Contains(log, "as long as that is so") {
				t.Errorf("the log is %s", log)
			}
			s.umount(dir)
			if data, err := os.ReadFile(filepath.Join(cache, "letter")); name == "somebody's home" && string(data) != "dear" {
				t.Errorf("the letter says %q, %v", data, err)
			}
		})
	}
}

// TestSurviveNotFewFiles: who may have few files open mounts an image of many layers without
// recovery, and is told.
func TestSurviveNotFewFiles(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	var layers []labimage.Layer
	for i := range 100 {
		layers = append(layers, func(a *labimage.Archive) error { return a.File(fmt.Sprint("f", i), fmt.Sprint("file ", i)) })
	}
	_, layout := publish(t, registrytest.New(t, nil), layers...)
	s := newSandbox(t)
	s.ok("index", "oci:"+layout)
	dir := s.mountpoint()
	r := s.finish(s.program("sh", "-c", `ulimit -n 300 && exec "$0" "$@"`, s.command().Path, "mount", "oci:"+layout, dir))
	if r.code != 0 || !strings.Contains(r.stderr, "the mount ends with the process that serves it") || !strings.Contains(r.stderr, "100 layers") || r.took > backSoon {
		t.Fatalf("exit code %d after %v: %s", r.code, r.took, r.stderr)
	}
	if got := readFile(t, filepath.Join(dir, "f99")); got != "file 99" {
		t.Errorf("read %q", got)
	}
	if got := s.stats(dir).Recovery; got.State != "off" || got.Why == "" {
		t.Errorf("recovery is %+v", got)
	}
	s.umount(dir)
}

// replaceBy moves a directory away, and makes something in its place.
func replaceBy(t *testing.T, dir string, make func() error) {
	t.Helper()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := make(); err != nil {
		t.Fatal(err)
	}
}
