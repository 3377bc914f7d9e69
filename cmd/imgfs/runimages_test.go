//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// buildProbe builds the program of images that are run, once, without cgo: it runs where
// there is no library.
var buildProbe = sync.OnceValues(func() (string, error) {
	path := filepath.Join(runDir, "probe")
	cmd := exec.Command("go", "build", "-o", path, "../../testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// programs returns the programs that are in the images to run.
func programs(t testing.TB) labimage.Programs {
	t.Helper()
	need(t, "busybox", "bash", "ldd")
	probe, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	return labimage.Programs{Probe: probe, Busybox: busybox}
}

// madeRunnables are the layouts of labimage.Runnables, in runDir until the end of all
// tests.
var madeRunnables struct {
	once sync.Once
	dirs map[string]string
	err  error
}

// runnables returns the directories of the layouts of labimage.Runnables by their names:
// busybox, named, static, debian and script.
func runnables(t testing.TB) map[string]string {
	t.Helper()
	p := programs(t)
	m := &madeRunnables
	m.once.Do(func() { m.dirs, m.err = makeRunnables(p) })
	if m.err != nil {
		t.Fatal(m.err)
	}
	return m.dirs
}

func makeRunnables(p labimage.Programs) (map[string]string, error) {
	top := filepath.Join(runDir, "runnable")
	images, err := labimage.Runnables(p)
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, img := range images {
		dirs[img.Name] = filepath.Join(top, img.Name)
		if err := os.MkdirAll(dirs[img.Name], 0o755); err != nil {
			return nil, err
		}
		if _, err := img.Write(dirs[img.Name]); err != nil {
			return nil, fmt.Errorf("%s: %w", img.Name, err)
		}
	}
	return dirs, nil
}

// TestRunnables: the images that are run are what their names promise.
func TestRunnables(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	images := runnables(t)
	for image, files := range map[string][]string{
		"busybox": {"/bin/sh", "/usr/local/bin/probe", "/srv/app/page"},
		"named":   {"/etc/passwd", "/usr/local/bin/probe"},
		"static":  {"/probe"},
		"debian":  {"/bin/bash", "/opt/same-tool", "/opt/emptied/new", "/opt/kept-tool"},
		"script":  {"/entry.sh", "/data/kept"},
	} {
		for _, f := range files {
			s.ok("stat", "-L", "oci:"+images[image], f)
		}
	}
	s.fails(1, []string{"opt/gone"}, "stat", "oci:"+images["debian"], "/opt/gone")
	s.fails(1, []string{"opt/emptied/old"}, "stat", "oci:"+images["debian"], "/opt/emptied/old")
}

// runnableWith returns the directory of a layout of a runnable image with more layers.
func runnableWith(t testing.TB, name string, layers ...labimage.Layer) (layout string) {
	t.Helper()
	images, err := labimage.Runnables(programs(t))
	if err != nil {
		t.Fatal(err)
	}
	img := images[slices.IndexFunc(images, func(r labimage.Runnable) bool { return r.Name == name })]
	img.Layers = append(img.Layers, layers...)
	layout = filepath.Join(publicDir(t), "layout")
	if _, err := img.Write(layout); err != nil {
		t.Fatal(err)
	}
	return layout
}
