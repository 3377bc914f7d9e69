//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSnapshotterDocker: docker, with its images in containerd, pulls no layer and runs
// containers; what is made of them has layers of its own alone. When images and containers go,
// so does all that was made for them.
func TestSnapshotterDocker(t *testing.T) {
	testenv.Slow(t)
	d := newDocker(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	d.docker("pull", image)
	if n := len(d.digests()); n != 2 {
		t.Errorf("the content store has %d blobs, want manifest and config", n)
	}
	if got := d.prints(image, "/opt/tool", "a b"); got != "tool: a b\n" {
		t.Errorf("a container prints %q", got)
	}
	if got, want := d.docker("info", "--format", "{{.Driver}} {{.DriverStatus}}"), "imgfs [[driver-type io.containerd.snapshotter.v1]]\n"; got != want {
		t.Errorf("docker info prints %q, want %q", got, want)
	}

	// A container that stays writes, and is committed; docker reads all files for that.
	d.docker("run", "--name", "writer", "--network=host", image, "bash", "-c", "echo x >/etc/motd && echo added >/opt/added")
	rows := d.ps()
	id := strings.TrimSpace(d.docker("inspect", "--format", "{{.Id}}", "writer"))
	if len(rows) != 1 || len(rows[0].Engine.Containers) != 1 || rows[0].Engine.Containers[0].Key != id || rows[0].Engine.Containers[0].Namespace != d.space() {
		t.Errorf("imgfs ps has %+v, want the container %s", rows, id)
	}
	d.docker("commit", "writer", "derived")
	if got := d.prints("derived", "cat", "/etc/motd", "/opt/added", "/opt/emptied/new"); got != "x\nadded\nnew\n" {
		t.Errorf("of what was committed a container prints %q", got)
	}
	if n := len(d.digests()); n != 6 {
		t.Errorf("the content store has %d blobs, want those of before, and one layer, its manifest, config and index", n)
	}

	// docker save leaves out what it does not have, and does not say so.
	saved := filepath.Join(d.dir, "saved.tar")
	d.docker("save", "--output", saved, image)
	listed := d.finish(d.program("tar", "-tf", saved)).stdout
	layers, _ := inspected(t, d.sandbox, "oci:"+runnables(t)["debian"])["Layers"].([]any)
	for _, l := range layers {
		if _, hex, _ := strings.Cut(fmt.Sprint(l), ":"); !strings.Contains(listed, "manifest.json\n") || strings.Contains(listed, hex) {
			t.Errorf("the archive has the layer %v, or no manifest:\n%s", l, listed)
		}
	}
	if len(layers) < 3 {
		t.Errorf("the image has the layers %v", layers)
	}
	before := reg.Bytes(registrytest.Blob)
	d.docker("rm", "writer")
	d.docker("rmi", "derived", image)
	d.leavesNoTree()
	if n := len(d.digests()); n > 0 {
		t.Errorf("the content store has %q", d.digests())
	}

	// What was indexed before is pulled again without a layer, too.
	d.docker("pull", image)
	if got := d.prints(image, "/opt/tool", "again"); got != "tool: again\n" {
		t.Errorf("a container prints %q", got)
	}
	if more := reg.Bytes(registrytest.Blob) - before; more > 4<<10 {
		t.Errorf("%d bytes of blobs came for the second pull", more)
	}
	d.docker("rmi", image)
	d.leavesNoTree()
}

// TestSnapshotterDockerKilled: dockerd, containerd and the snapshotter may be killed under a
// container, one after the other and all together.
func TestSnapshotterDockerKilled(t *testing.T) {
	testenv.Slow(t)
	d := newDocker(t)
	image := pushed(t, registrytest.New(t, nil), "debian")
	d.docker("run", "--detach", "--name", "stays", "--network=host", image, "sleep", "1000")
	reads := func(when string) {
		t.Helper()
		var got string
		if !eventually(30*time.Second, func() bool { // dockerd connects to containerd again
			r := d.finish(d.program(filepath.Join(d.programs, "docker"), "exec", "stays", "cat", "/etc/motd", "/opt/emptied/new"))
			got = r.stdout + r.stderr
			return r.code == 0
		}) || got != "third layer\nnew\n" {
			t.Errorf("%s: the container reads %q", when, got)
		}
		if got := d.docker("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "stays"); got != "running 0\n" {
			t.Errorf("%s: the container is %q", when, got)
		}
	}
	tree := mountsBelow(filepath.Join(d.root(), "chains"))
	reads("before")
	d.kill(&d.snapshotter)
	reads("without snapshotter")
	d.startSnapshotter()
	d.prints(image, "/opt/tool")
	d.kill(&d.dockerd)
	d.startDocker()
	reads("with the next dockerd")
	d.kill(&d.containerd)
	d.startContainerd()
	reads("with the next containerd")
	for _, cmd := range []**exec.Cmd{&d.dockerd, &d.containerd, &d.snapshotter} {
		d.kill(cmd)
	}
	d.startSnapshotter()
	d.startContainerd()
	d.startDocker()
	reads("with the next of all")
	if got := d.prints(image, "/opt/tool", "new"); got != "tool: new\n" {
		t.Errorf("a new container prints %q", got)
	}
	if now := mountsBelow(filepath.Join(d.root(), "chains")); len(tree) != 1 || !slices.Equal(now, tree) {
		t.Errorf("mounts %q, and before %q, want the same one", now, tree)
	}
	d.docker("rm", "--force", "stays")
	d.docker("rmi", image)
	d.leavesNoTree()
}
