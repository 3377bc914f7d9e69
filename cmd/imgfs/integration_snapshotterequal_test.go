//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSnapshotterEqual: the files of a running container are those that it has when its image
// is unpacked by containerd: types, modes, owners, sizes, times, links, attributes, contents,
// of all kinds of entries, with whiteouts and opaque directories. So is a view of the image.
func TestSnapshotterEqual(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	layout := filepath.Join(publicDir(t), "layout")
	if err := labimage.Zoo(layout, probeLayer(t)); err != nil {
		t.Fatal(err)
	}
	image := pushedLayout(t, registrytest.New(t, nil), layout, "zoo")
	var running, viewed [2]dump
	for i, snapshotter := range []string{"imgfs", "overlayfs"} {
		ns := fmt.Sprint(e.space(), "-", i)
		e.must(ns, "image", "pull", "--plain-http", "--snapshotter", snapshotter, image)
		e.must(ns, "run", "--detach", "--snapshotter", snapshotter, image, "one", "/probe", "sleep", "1000")
		running[i] = withoutRoot(dumpOf(t, thisUser(), e.rootfs(ns, "one")))
		viewed[i] = withoutRoot(e.viewOf(ns, snapshotter, openLayout(t, layout)))
		e.empties(ns)
	}
	for i := range 2 {
		if len(running[i]) < 80 {
			t.Errorf("only %d files", len(running[i]))
		}
		expectUnpacked(running[i])
		expectUnpacked(viewed[i])
	}
	compare(t, "imgfs", running[0], "unpacked", running[1])
	compare(t, "view", viewed[0], "unpacked", viewed[1])
	e.leavesNoTree()
}

// expectUnpacked makes of a dump what containerd and an overlay make of it. They know no time
// before 1970 (boundTime in containerd's pkg/archive/time.go), and count the names of a file
// that upper layers have removed.
func expectUnpacked(d dump) {
	for path, line := range d {
		if strings.Contains(line, `group="/link/first"`) {
			line = strings.Replace(line, " links=3 ", " links=4 ", 1) // without link/second
			d[path] = line
		}
		before, rest, _ := strings.Cut(line, " mtime=-")
		if rest != "" {
			_, rest, _ = strings.Cut(rest, " ")
			d[path] = before + " mtime=0.000000000 " + rest
		}
	}
}

// probeLayer is a layer with a program to run, and all directories that a container has things
// mounted on: without them they would be made in its writable layer.
func probeLayer(t testing.TB) labimage.Layer {
	path := programs(t).Probe
	return func(a *labimage.Archive) error {
		var errs []error
		for _, dir := range []string{"dev", "proc", "run", "sys", "usr", "usr/local", "usr/local/go"} {
			errs = append(errs, a.Dir(dir))
		}
		text, err := os.ReadFile(path)
		return errors.Join(append(errs, err, a.File("probe", string(text), labimage.Mode(0o755)))...)
	}
}

// viewOf returns the dump of a view of all layers of an image.
func (e *engine) viewOf(ns, snapshotter string, img *labimage.Image) dump {
	e.t.Helper()
	chains := chainsOf(img)
	e.must(ns, "snapshot", "--snapshotter", snapshotter, "view", "view", chains[len(chains)-1].String())
	e.must(ns, "snapshot", "--snapshotter", snapshotter, "label", "view", "containerd.io/gc.root=1") // else it is garbage
	dir := e.mountpoint()
	command := strings.Fields(e.must(ns, "snapshot", "--snapshotter", snapshotter, "mounts", dir, "view"))
	if len(command) < 4 || command[0] != "mount" {
		e.t.Fatalf("ctr snapshot mounts prints %q", command)
	}
	tool(e.t, command[0], command[1:]...)
	d := dumpOf(e.t, thisUser(), dir)
	tool(e.t, "umount", dir)
	e.must(ns, "snapshot", "--snapshotter", snapshotter, "rm", "view")
	return d
}
