//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSnapshotterCRI: a pod's container runs of an image of which nothing but manifest and config was
// fetched, is measured, and leaves nothing.
func TestSnapshotterCRI(t *testing.T) {
	testenv.Slow(t)
	forEachCRI(t, nil, func(t *testing.T, c *criEngine) {
		reg := registrytest.New(t, nil)
		image := pushed(t, reg, "debian")
		c.asks("pull", image)
		if n := c.blobs(); n != 2 {
			t.Errorf("containerd's content store has %d blobs, want manifest and config", n)
		}
		p := c.pod()
		if got, code := c.prints(p, image, "first", "/opt/tool", "a b"); got != "tool: a b\n" || code != 0 {
			t.Errorf("a container prints %q, exit code %d", got, code)
		}
		if n := c.blobs(); n != 4 {
			t.Errorf("containerd's content store has %d blobs, want manifest and config of two images", n)
		}
		id := c.mustStart(p, image, "stays", "sleep", "1000")
		if got := c.execs(id, "bash", "-c", "echo written >/etc/motd && cat /etc/motd /opt/emptied/*"); got != "written\nnew\n" {
			t.Errorf("a command in the container prints %q", got)
		}
		for _, args := range [][]string{{"stats", "--output", "json", id}, {"stats", "--all"}, {"imagefsinfo"}} {
			if got := c.asks(args...); args[0] == "stats" && !strings.Contains(got, id[:13]) {
				t.Errorf("crictl %q prints\n%s", args, got)
			}
		}
		if n := len(mountsBelow(filepath.Join(c.root(), "chains"))); n != 2 {
			t.Errorf("%d mounts, want one for each image", n)
		}
		if got := c.does("snapshot", "--snapshotter", "imgfs", "usage"); len(strings.Split(got, "\n")) < 4 {
			t.Errorf("usage of snapshots:\n%s", got)
		}
		c.asks("rmp", "--force", p.id)
		c.asks("rmi", image, c.pause)
		c.leavesNoTree()
	})
}

// TestSnapshotterCRIRestarts: containers and images are still there when the snapshotter, containerd or
// both were started anew, whatever was killed first.
func TestSnapshotterCRIRestarts(t *testing.T) {
	testenv.Slow(t)
	images := func(e *engine) []string { return []string{"--image-service", "unix://" + e.address()} }
	forEachCRI(t, images, func(t *testing.T, c *criEngine) {
		c.images = c.socket()
		image := pushed(t, registrytest.New(t, nil), "debian")
		c.asks("pull", image)
		p := c.pod()
		id := c.mustStart(p, image, "stays", "sleep", "1000")
		works := func(when, name string) {
			t.Helper()
			if got := c.execs(id, "cat", "/opt/emptied/new"); got != "new\n" {
				t.Errorf("%s: the container reads %q", when, got)
			}
			if got, code := c.prints(p, image, name, "/opt/tool", name); got != "tool: "+name+"\n" || code != 0 {
				t.Errorf("%s: a new container prints %q, exit code %d", when, got, code)
			}
			if got := c.asks("images"); !strings.Contains(got, strings.TrimSuffix(image, ":latest")) {
				t.Errorf("%s: the image is lost:\n%s", when, got)
			}
		}
		works("at first", "first")
		c.kill(&c.snapshotter)
		c.images = c.address() // crictl wants an image service for everything
		if got := c.execs(id, "cat", "/etc/motd"); got != "third layer\n" {
			t.Errorf("without snapshotter: the container reads %q", got)
		}
		c.restarts()
		c.images = c.socket()
		works("with the next snapshotter", "second")
		c.kill(&c.containerd)
		if r := c.finish(c.crictl("--timeout", "5s", "images")); r.code == 0 {
			t.Errorf("without containerd: %s", r.stdout)
		}
		c.startContainerd()
		c.waits()
		works("with the next containerd", "third")
		c.kill(&c.containerd)
		c.kill(&c.snapshotter)
		c.startSnapshotter()
		c.startContainerd()
		c.waits()
		works("with the next of both", "fourth")
		c.asks("rmp", "--force", p.id)
		c.asks("rmi", image, c.pause)
		c.leavesNoTree()
	})
}

// restarts starts the next snapshotter, and waits until containerd has found it, which lets
// up to some seconds pass between its attempts.
func (c *criEngine) restarts() {
	c.t.Helper()
	c.startSnapshotter()
	if !eventually(30*time.Second, func() bool {
		return c.finish(c.ctr(c.space(), "snapshot", "--snapshotter", "imgfs", "ls")).code == 0
	}) {
		c.t.Fatal("containerd does not find the next snapshotter")
	}
}

// waits waits until the next containerd answers, to crictl and to the image service.
func (c *criEngine) waits() {
	c.t.Helper()
	var r result
	if !eventually(60*time.Second, func() bool {
		if r = c.finish(c.crictl("pods")); r.code == 0 {
			r = c.finish(c.crictl("images"))
		}
		return r.code == 0
	}) {
		c.t.Fatalf("the next containerd does not answer: %s", r.stderr)
	}
}

// criSecret is the password of the registry in TestSnapshotterCRICredentials.
const criSecret = "pass-word-of-joe"

// TestSnapshotterCRICredentials: what kubelet has for an image is enough to mount it, for as long as the
// mount lives, and is nowhere else than in memory.
func TestSnapshotterCRICredentials(t *testing.T) {
	testenv.Slow(t)
	images := func(e *engine) []string { return []string{"--image-service", e.address()} }
	forEachCRI(t, images, func(t *testing.T, c *criEngine) {
		login := registrytest.Bearer
		if c.version == "" {
			login = registrytest.Basic
		}
		reg := registrytest.New(t, &registrytest.Options{Login: login, User: "joe", Password: criSecret})
		image := pushed(t, reg, "debian")

		// Past the snapshotter: containerd has the credential, and imgfs has not.
		if r := c.pulls(image, "joe:"+criSecret); r.code != 0 || c.blobs() != 5 {
			t.Fatalf("containerd's content store has %d blobs, want all 5: exit code %d\n%s", c.blobs(), r.code, r.stderr)
		}
		p := c.pod()
		if got, code := c.prints(p, image, "unpacked", "/opt/tool"); got != "tool:\n" || code != 0 {
			t.Errorf("an unpacked container prints %q, exit code %d", got, code)
		}
		c.asks("rmp", "--force", p.id)
		c.asks("rmi", image)

		// By the snapshotter, which remembers for a while that it could not read the image. What
		// imgfs has itself for that registry is for other images.
		writeFile(t, filepath.Join(c.dir, ".docker/config.json"), fmt.Sprintf(`{"auths": {%q: {"username": "eve", "password": "wrong"}}}`, reg.Host()))
		c.kill(&c.snapshotter)
		c.restarts()
		c.images = c.socket()
		for _, creds := range []string{"", "joe:wrong"} {
			if r := c.pulls(image, creds); r.code == 0 {
				t.Errorf("the image is pulled with the credential %q", creds)
			}
		}
		c.wantLazy(image)
		p = c.pod()
		if got, code := c.prints(p, image, "lazy", "/opt/tool"); got != "tool:\n" || code != 0 {
			t.Errorf("a lazy container prints %q, exit code %d", got, code)
		}

		// A pull that is refused takes nothing from mounts that are there.
		c.empties(reg)
		if r := c.pulls(image, "joe:wrong"); r.code == 0 {
			t.Error("the image is pulled with a wrong credential")
		}
		reg.Forget()
		if got, code := c.prints(p, image, "again", "/opt/tool"); got != "tool:\n" || code != 0 {
			t.Errorf("a container of a new mount prints %q, exit code %d", got, code)
		}
		if reg.Count(registrytest.Blob) == 0 || login == registrytest.Bearer && reg.Count(registrytest.Token) == 0 {
			t.Errorf("nothing was asked of the registry: the test proves nothing")
		}

		// The next snapshotter has no credential, and a mount that is there gets it with the
		// next pull.
		c.empties(reg)
		c.kill(&c.snapshotter)
		c.restarts()
		if id, r := c.starts(p, image, "without", "sleep", "1000"); r.code == 0 {
			t.Errorf("container %s starts without a credential, and without anything in the cache", id)
		}
		if r := c.pulls(image, "joe:"+criSecret); r.code != 0 {
			t.Errorf("the image is not pulled again: %s", r.stderr)
		}
		if !eventually(60*time.Second, func() bool {
			_, r := c.starts(p, image, "renewed", "sleep", "1000")
			return r.code == 0
		}) {
			t.Error("no container starts after the credential came")
		}
		c.wantSecretNowhere(criSecret)
		c.asks("rmp", "--force", p.id)
		c.asks("rmi", image, c.pause)
		c.leavesNoTree()
	})
}

// wantLazy pulls an image with its credential, and checks that no layer was fetched.
func (c *criEngine) wantLazy(image string) {
	c.t.Helper()
	before := c.blobs()
	if r := c.pulls(image, "joe:"+criSecret); r.code != 0 {
		c.t.Fatalf("crictl pull: exit code %d\n%s", r.code, r.stderr)
	}
	if n := c.blobs() - before; n != 2 {
		c.t.Errorf("containerd has fetched %d blobs, want manifest and config", n)
	}
}

// empties ends all mounts, dead ones of which are made again, and takes the contents of layers
// out of the cache. The registry gives new tokens.
func (c *criEngine) empties(reg *registrytest.Server) {
	c.t.Helper()
	kill9(filepath.Join(c.root(), "chains"))
	for _, dir := range []string{"blobs", "contents"} {
		names, _ := filepath.Glob(filepath.Join(c.cache, dir, "*", "*")) // the pattern is a good one
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	reg.RevokeTokens()
}

// wantSecretNowhere checks that a secret is in no file of the sandbox, and in no command line
// or environment of a process that has to do with it.
func (c *criEngine) wantSecretNowhere(secret string) {
	c.t.Helper()
	found := func(where string, text []byte) {
		if strings.Contains(string(text), secret) {
			c.t.Errorf("the password is in %s", where)
		}
	}
	// What containerd has of containers, and what images have, is not of interest.
	own := []string{filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), filepath.Join(c.dir, "runc"), filepath.Join(c.root(), "chains"), filepath.Join(c.root(), "snapshots")}
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case slices.Contains(own, path):
			return fs.SkipDir
		case err == nil && d.Type().IsRegular():
			if text, err := os.ReadFile(path); err == nil { // else it is gone
				found(path, text)
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	seen := 0
	for _, pid := range append(processes(c.dir), c.snapshotter.Process.Pid) {
		for _, name := range []string{"cmdline", "environ"} {
			if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
				seen++
				found(name+" of a process", text)
			}
		}
	}
	if seen < 4 {
		c.t.Errorf("only %d files of processes were looked at", seen)
	}
}

// TestSnapshotterCRIUserNamespace: a pod with a user namespace of its own sees the owners of an image, and
// containerd copies none of its files for that.
func TestSnapshotterCRIUserNamespace(t *testing.T) {
	testenv.Slow(t)
	c := newCRI(t, "2.4", func(*engine) []string { return []string{"--remap-ids"} })
	defer c.removesPods()
	layout := runnableWith(t, "busybox", func(a *labimage.Archive) error {
		return errors.Join(a.Dir("own", labimage.Owner(1000, 1001)), a.File("own/file", "kept\n", labimage.Owner(1000, 1001)))
	})
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	image := reg.Host() + "/app:latest"
	c.asks("pull", image)
	const first = 300_000
	ids := []map[string]any{{"host_id": first, "container_id": 0, "length": 65_536}}
	p := c.podIn(map[string]any{"pid": 1, "userns_options": map[string]any{"mode": 0, "uids": ids, "gids": ids}})
	id := c.mustStart(p, image, "mapped", "sleep", "1000")
	got := c.execs(id, "sh", "-c", "id -u; stat -c '%u %g %n' /srv /own; cat /proc/self/uid_map; echo more >>/own/file; echo >/new; stat -c '%u %g' /own/file; cat /own/file")
	want := "0\n0 0 /srv\n1000 1001 /own\n         0     300000      65536\n1000 1001\nkept\nmore\n"
	if got != want {
		t.Errorf("the container prints\n%swant\n%s", got, want)
	}
	uppers, _ := filepath.Glob(filepath.Join(c.root(), "snapshots", "*", "fs")) // the pattern is a good one
	owners, copied := map[string]uint32{}, []string{}
	for _, upper := range uppers {
		for _, name := range filesBelow(t, upper) {
			st, err := os.Lstat(filepath.Join(upper, name))
			if err != nil {
				t.Fatal(err)
			}
			owners[name] = st.Sys().(*syscall.Stat_t).Uid
			copied = append(copied, name)
		}
	}
	if owners["own/file"] != first+1000 || owners["new"] != first {
		t.Errorf("what the container has written belongs to %v, want %d and %d", owners, first+1000, first)
	}
	if len(copied) > 10 {
		t.Errorf("for containers that wrote two files these were copied: %q", copied)
	}
	c.asks("rmp", "--force", p.id)
	c.asks("rmi", image, c.pause)
	c.leavesNoTree()
}
