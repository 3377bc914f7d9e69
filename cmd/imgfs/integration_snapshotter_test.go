//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSnapshotter: containerd pulls an image and runs it, and has fetched nothing but its
// manifest and config. When the image goes, so does all that was made for it.
func TestSnapshotter(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	e.pull(image)
	if n := e.blobs(); n != 2 {
		t.Errorf("containerd's content store has %d blobs, want manifest and config", n)
	}
	if got, want := e.runs(image, "first", "/opt/tool", "a b"), "tool: a b\n"; got != want {
		t.Errorf("a container prints %q, want %q", got, want)
	}
	if got, want := e.runs(image, "second", "bash", "-c", "echo x >/etc/motd && cat /etc/motd /opt/emptied/*; ls /opt"), "x\nnew\nemptied\nkept-tool\nsame-tool\nto-tool\ntool\n"; got != want {
		t.Errorf("a container prints %q, want %q", got, want)
	}
	if n := len(mountsBelow(e.root())); n != 1 {
		t.Errorf("%d mounts, want one: %q", n, mountsBelow(e.root()))
	}
	usage := e.does("snapshot", "--snapshotter", "imgfs", "usage")
	for _, line := range strings.Split(strings.TrimSpace(usage), "\n")[1:] {
		if fields := strings.Fields(line); len(fields) < 3 || fields[1] != "0" && fields[1] != "0.0" {
			t.Errorf("a lazy snapshot takes something: %q", line)
		}
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// leavesNoTree checks that the snapshotter has no mounts, no processes for them and no
// files, now or soon.
func (e *engine) leavesNoTree() {
	e.t.Helper()
	var left []string
	if !eventually(20*time.Second, func() bool {
		left = mountsBelow(e.root())
		for _, dir := range []string{"chains", "snapshots", "removed"} {
			entries, _ := filepath.Glob(filepath.Join(e.root(), dir, "*"))
			left = append(left, entries...)
		}
		for _, pid := range processes(filepath.Join(e.root(), "chains")) {
			left = append(left, fmt.Sprint("process ", pid, cmdline(pid)))
		}
		return len(left) == 0
	}) {
		e.t.Errorf("left: %q", left)
	}
}

// TestSnapshotterKilled: a snapshotter and a containerd that are killed disturb no container,
// and their successors go on with it.
func TestSnapshotterKilled(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	e.pull(image)
	e.keeps(image, "stays", "sleep", "1000")
	execs := 0
	exec := func(when string) {
		t.Helper()
		execs++
		if got := e.does("task", "exec", "--exec-id", fmt.Sprint("exec", execs), "stays", "cat", "/etc/motd", "/opt/emptied/new"); got != "third layer\nnew\n" {
			t.Errorf("%s: the container reads %q", when, got)
		}
	}
	tree := mountsBelow(e.root())
	e.kill(&e.snapshotter)
	exec("without snapshotter")
	e.startSnapshotter()
	exec("with the next one")
	e.runs(image, "new", "/opt/tool")
	e.kill(&e.containerd)
	e.kill(&e.snapshotter)
	e.startSnapshotter()
	e.startContainerd()
	exec("with the next of both")
	e.runs(image, "newer", "/opt/tool")
	if now := mountsBelow(e.root()); len(tree) != 1 || len(now) != 1 || now[0] != tree[0] {
		t.Errorf("mounts %q, and before %q, want the same one", now, tree)
	}

	// A tree whose server and its holder are killed is mounted anew for the next container.
	kill9(filepath.Join(e.root(), "chains"))
	e.runs(image, "newest", "/opt/tool")
	e.end("stays")
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterFallsBack: what imgfs has no credentials for is unpacked, and an image made of
// a lazy one has its own layers above that.
func TestSnapshotterFallsBack(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "joe", Password: "secret"})
	image := pushed(t, reg, "debian")
	e.pull(image, "--user", "joe:secret")
	if n := e.blobs(); n != 5 {
		t.Errorf("containerd's content store has %d blobs, want 5: all of the image", n)
	}
	if got := e.runs(image, "unpacked", "/opt/tool"); got != "tool:\n" {
		t.Errorf("a container prints %q", got)
	}
	if mounts := mountsBelow(e.root()); len(mounts) > 0 {
		t.Errorf("mounts %q", mounts)
	}
	if log := e.log("snapshotter.log"); strings.Contains(log, "secret") {
		t.Errorf("the password is in the log:\n%s", log)
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterTogether: namespaces that pull and run one image at the same time have one
// mount, and each layer comes once.
func TestSnapshotterTogether(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			ns := fmt.Sprint(e.space(), "-", i)
			for _, args := range [][]string{
				{"image", "pull", "--plain-http", "--snapshotter", "imgfs", image},
				{"run", "--rm", "--snapshotter", "imgfs", image, "one", "/opt/tool", ns},
			} {
				if r := e.finish(e.ctr(ns, args...)); r.code != 0 || args[0] == "run" && r.stdout != "tool: "+ns+"\n" {
					t.Errorf("%s: ctr %q: exit code %d\n%s%s", ns, args, r.code, r.stdout, r.stderr)
				}
			}
		})
	}
	all.Wait()
	if n := len(mountsBelow(e.root())); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	if moved, size := reg.Bytes(registrytest.Blob), sizeBelow(t, runnables(t)["debian"]); moved > size*5/4 {
		t.Errorf("%d bytes came of an image of %d", moved, size)
	}
	for i := range 4 {
		if r := e.finish(e.ctr(fmt.Sprint(e.space(), "-", i), "image", "rm", "--sync", image)); r.code != 0 {
			t.Errorf("ctr image rm: %s", r.stderr)
		}
		if i < 3 && len(mountsBelow(e.root())) != 1 {
			t.Errorf("the mount is gone, which other namespaces need")
		}
	}
	e.leavesNoTree()
}

// sizeBelow adds up the files below a directory.
func sizeBelow(t *testing.T, dir string) (size int64) {
	t.Helper()
	for _, name := range filesBelow(t, dir) {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	return size
}

// TestSnapshotter16: the containerd of distributions, whose ctr names no image, unpacks.
func TestSnapshotter16(t *testing.T) {
	testenv.Slow(t)
	e := newOldEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "busybox")
	e.pull(image)
	if got := e.runs(image, "one", "cat", "/srv/app/page"); got != "page\n" {
		t.Errorf("a container prints %q", got)
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterEnds: a signal ends it and leaves mounts, one root has one, and a socket that
// a killed one left is no obstacle.
func TestSnapshotterEnds(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	image := pushed(t, registrytest.New(t, nil), "busybox")
	e.pull(image)
	e.keeps(image, "stays", "sleep", "1000")
	e.fails(1, []string{"another process listens"}, "snapshotter", "--address", e.socket(), "--root", e.root())
	e.fails(1, []string{e.root(), "another process keeps it"}, "snapshotter", "--address", e.socket()+"2", "--root", e.root())
	if err := e.snapshotter.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := e.snapshotter.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	e.snapshotter = nil
	if _, err := os.Stat(e.socket()); err == nil {
		t.Error("the socket is left")
	}
	if n := len(mountsBelow(e.root())); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	e.startSnapshotter()
	e.kill(&e.snapshotter)
	e.startSnapshotter()
	e.end("stays")
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterImageServiceRefused: what can be no socket of containerd is said at once.
func TestSnapshotterImageServiceRefused(t *testing.T) {
	needEngine(t)
	s := newSandbox(t)
	socket, root := filepath.Join(s.dir, "s.sock"), filepath.Join(s.dir, "snapshotter")
	for value, want := range map[string]string{
		"":                             "is empty",
		"containerd.sock":              "absolute path",
		"tcp://127.0.0.1:1234":         "absolute path",
		"/" + strings.Repeat("a", 200): "107 are possible",
		socket:                         "listens itself",
		"unix://" + socket:             "listens itself",
	} {
		s.fails(cli.ExitUsage, []string{"--image-service", want}, "snapshotter", "--address", socket, "--root", root, "--image-service", value)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
	long := filepath.Join(root, strings.Repeat("a", 100))
	s.fails(1, []string{"socket for credentials", "are possible"}, "snapshotter", "--address", socket, "--root", long, "--image-service", "/run/none")
}
