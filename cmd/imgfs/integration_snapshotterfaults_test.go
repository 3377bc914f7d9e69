//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSnapshotterBadLayer: an image with a layer that is not what its config says is not
// pulled, neither lazily nor the next time, when it is unpacked, and leaves nothing.
func TestSnapshotterBadLayer(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	good := openLayout(t, runnableWith(t, "busybox", func(a *labimage.Archive) error { return a.File("etc/motd", "good\n") }))
	layers := 0
	bad, err := good.Convert(filepath.Join(publicDir(t), "bad"), func(from, to string) (labimage.Converted, error) {
		layers++
		made := labimage.Converted{MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: good.DiffIDs[layers-1]}
		if layers == len(good.DiffIDs) {
			made.DiffID = digest.FromString("another layer")
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return made, err
		}
		return made, os.WriteFile(to, text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	image := pushedLayout(t, registrytest.New(t, nil), bad.Layout, "bad")
	first := e.refuses(pulling(image)...)
	if want := bad.DiffIDs[layers-1].String(); !strings.Contains(first, want) {
		t.Errorf("containerd does not say what is wrong with %s:\n%s", want, first)
	}
	e.collects(e.space())
	e.leavesNoTree()
	if second := e.refuses(pulling(image)...); !strings.Contains(second, "wrong diff id") {
		t.Errorf("the second time containerd says\n%s", second)
	}
	e.collects(e.space())
	e.leavesNoTree()
	if n := e.blobs(); n != 0 {
		t.Errorf("containerd's content store has %d blobs", n)
	}
}

// TestSnapshotterRegistryGone: when the registry goes away between pull and run, containers run
// from the cache.
func TestSnapshotterRegistryGone(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	e.pull(image)
	reg.Close()
	if got := e.runs(image, "one", "/opt/tool", "x"); got != "tool: x\n" {
		t.Errorf("a container prints %q", got)
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterUnreadable: what is neither in the cache nor to be had from the registry
// cannot be read, and nothing wrong is. It can be when the registry is there again.
func TestSnapshotterUnreadable(t *testing.T) {
	testenv.Slow(t)
	t.Parallel() // it waits most of the time
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	text := noiseOf(7, 3<<20)
	image := pushedLayout(t, reg, runnableWith(t, "busybox", func(a *labimage.Archive) error { return a.File("srv/noise", text) }), "gone")
	e.pull(image)
	// As on another node: the indexes are there, and nothing of the layers.
	if err := os.RemoveAll(filepath.Join(e.cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	e.keeps(image, "stays", "sleep", "1000")
	if r := e.execs("stays", "cat", "/usr/bin/busybox"); r.code != 0 {
		t.Fatalf("cat: %s", r.stderr)
	}
	reg.Inject(registrytest.Blob, registrytest.Always(registrytest.Reset(0)))
	read := func() result { return e.execs("stays", "dd", "if=/srv/noise", "bs=4096") }
	r := read()
	if r.code == 0 || !strings.Contains(r.stderr, "I/O error") && !strings.Contains(r.stderr, "Input/output error") {
		t.Errorf("a file that cannot be had: exit code %d\n%s", r.code, r.stderr)
	}
	if !strings.HasPrefix(text, r.stdout) {
		t.Errorf("of a file that cannot be had %d bytes are read, and they are wrong", len(r.stdout))
	}
	t.Logf("a read fails after %v, with %d bytes read", r.took, len(r.stdout))
	reg.Inject(registrytest.Blob, nil)
	if !eventually(20*time.Second, func() bool { r = read(); return r.code == 0 }) || r.stdout != text {
		t.Errorf("when the registry is there again: exit code %d, %d bytes\n%s", r.code, len(r.stdout), r.stderr)
	}
	e.end("stays")
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterUnsupported: layers of a kind that imgfs does not read are unpacked, and
// containers run on them.
func TestSnapshotterUnsupported(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	good := openLayout(t, runnables(t)["busybox"])
	n := 0
	foreign, err := good.Convert(filepath.Join(publicDir(t), "foreign"), func(from, to string) (labimage.Converted, error) {
		n++
		text, err := os.ReadFile(from)
		if err != nil {
			return labimage.Converted{}, err
		}
		// Registries need not hold these, so imgfs does not read them.
		const kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		return labimage.Converted{MediaType: kind, DiffID: good.DiffIDs[n-1]}, os.WriteFile(to, text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	image := pushedLayout(t, registrytest.New(t, nil), foreign.Layout, "foreign")
	e.pull(image)
	if got := e.runs(image, "one", "cat", "/srv/app/page"); got != "page\n" {
		t.Errorf("a container prints %q", got)
	}
	if mounts := mountsBelow(e.root()); len(mounts) > 0 {
		t.Errorf("mounts %q", mounts)
	}
	if log := e.log("snapshotter.log"); !strings.Contains(log, "foreign layer") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterLogin: with credentials in DOCKER_CONFIG layers are lazy, from a registry that
// lets nobody else in, and no secret is in the logs or on the disk.
func TestSnapshotterLogin(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	const password = "tr0ubador&3"
	for _, login := range []registrytest.Login{registrytest.Basic, registrytest.Bearer} {
		reg := registrytest.New(t, &registrytest.Options{Login: login, User: "joe", Password: password})
		image := pushed(t, reg, "debian")
		e.terminates()
		docker := filepath.Join(e.dir, fmt.Sprint("docker", login))
		writeFile(t, filepath.Join(docker, "config.json"), fmt.Sprintf(`{"auths":{%q:{"username":"joe","password":%q}}}`, reg.Host(), password))
		e.env = append(e.env, "DOCKER_CONFIG="+docker)
		e.startSnapshotter()
		e.pull(image, "--user", "joe:"+password)
		if got := e.runs(image, "one", "/opt/tool", "x"); got != "tool: x\n" {
			t.Errorf("a container prints %q", got)
		}
		if n := len(mountsBelow(e.root())); n != 1 {
			t.Errorf("%d mounts, want one", n)
		}
		e.does("image", "rm", "--sync", image)
		e.leavesNoTree()
	}
	for _, dir := range []string{e.root(), e.cache} {
		for _, name := range filesBelow(t, dir) {
			if strings.Contains(readFile(t, filepath.Join(dir, name)), password) {
				t.Errorf("the password is in %s", filepath.Join(dir, name))
			}
		}
	}
	if log := e.log("snapshotter.log") + e.log("containerd.log"); strings.Contains(log, password) || strings.Contains(log, "Bearer ey") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

// TestSnapshotterDerived: the layers that an image has above a lazy base are unpacked above it
// if they cannot be lazy themselves, and the blobs of the base are never fetched.
func TestSnapshotterDerived(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	open := registrytest.New(t, nil)
	closed := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "joe", Password: "secret"})
	base := pushed(t, open, "busybox")
	layout := runnableWith(t, "busybox", func(a *labimage.Archive) error { return a.Whiteout("srv/app/page") },
		func(a *labimage.Archive) error { return a.File("srv/app/own", "own\n") })
	derived := pushedLayout(t, closed, layout, "derived")
	img := openLayout(t, layout)
	e.pull(base)
	e.pull(derived, "--user", "joe:secret")
	for i, l := range img.Manifest.Layers {
		if asked, want := wasAsked(closed, l.Digest), i >= 2; asked != want {
			t.Errorf("layer %d was fetched by containerd: %t, want %t", i+1, asked, want)
		}
	}
	if got := e.runs(derived, "one", "ls", "/srv/app"); got != "own\n" {
		t.Errorf("a container prints %q", got)
	}
	e.keeps(derived, "stays", "sleep", "1000")
	line := mountLine(t, e.rootfs(e.space(), "stays"))
	_, lower, _ := strings.Cut(line, "lowerdir=")
	lower, _, _ = strings.Cut(lower, ",")
	if dirs := strings.Split(lower, ":"); len(dirs) != 3 || !strings.Contains(dirs[2], "/chains/") || !strings.Contains(dirs[1], "/snapshots/") {
		t.Errorf("the container has the lower directories %q", dirs)
	}
	// The base goes when nothing needs it any more.
	e.does("image", "rm", "--sync", base)
	if got := e.execs("stays", "cat", "/srv/app/own", "/etc/group"); got.code != 0 {
		t.Errorf("without its base's name the container reads %q", got.stderr)
	}
	e.end("stays")
	e.does("image", "rm", "--sync", derived)
	e.leavesNoTree()
}

// TestSnapshotterRemoved: an image that is removed stays for the container that runs, also what
// it has never read, and goes with it.
func TestSnapshotterRemoved(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	image := pushed(t, registrytest.New(t, nil), "debian")
	e.pull(image)
	e.keeps(image, "stays", "sleep", "1000")
	e.does("image", "rm", "--sync", image)
	e.collects(e.space())
	if r := e.execs("stays", "/opt/tool", "late"); r.stdout != "tool: late\n" {
		t.Errorf("without its image the container prints %q\n%s", r.stdout, r.stderr)
	}
	if n := len(mountsBelow(e.root())); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	e.end("stays")
	e.collects(e.space())
	e.leavesNoTree()
}

// TestSnapshotterTwoRegistries: a chain that two namespaces know by images of two registries is
// mounted by the one that is there.
func TestSnapshotterTwoRegistries(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	stays, goes := registrytest.New(t, nil), registrytest.New(t, nil)
	spaces := []string{e.space() + "-0", e.space() + "-1"}
	images := []string{pushed(t, stays, "debian"), pushed(t, goes, "debian")}
	for i, ns := range spaces {
		e.must(ns, pulling(images[i])...)
	}
	goes.Close()
	e.ok("cache", "prune", "--all")
	begun := time.Now()
	if got := e.must(spaces[1], "run", "--rm", "--snapshotter", "imgfs", images[1], "one", "/opt/tool", "x"); got != "tool: x\n" {
		t.Errorf("a container prints %q", got)
	}
	t.Logf("it starts within %v", time.Since(begun))
	e.must(spaces[0], "image", "rm", "--sync", images[0])
	if n := len(mountsBelow(e.root())); n != 1 {
		t.Errorf("%d mounts, want one: the other namespace needs it", n)
	}
	e.must(spaces[1], "image", "rm", "--sync", images[1])
	e.leavesNoTree()
}

// TestSnapshotterSilentRegistry: where the registry does not answer imgfs, but containerd,
// images are unpacked, after a wait for the first layer. Others wait no longer than that, when
// garbage is collected meanwhile.
func TestSnapshotterSilentRegistry(t *testing.T) {
	testenv.Slow(t)
	t.Parallel() // it waits most of the time
	e := newEngine(t)
	reg, other := registrytest.New(t, nil), registrytest.New(t, nil)
	running := pushed(t, other, "busybox")
	e.pull(running)
	e.runs(running, "first", "true")
	for _, kind := range []registrytest.Kind{registrytest.Ping, registrytest.Manifest, registrytest.Blob} {
		reg.Inject(kind, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.HasPrefix(r.UserAgent(), "containerd/") {
				serve(w, r)
				return
			}
			reg.Stall(-1)(w, r, serve)
		}))
	}
	image := pushed(t, reg, "debian")
	pulled := make(chan result, 1)
	go func() { pulled <- e.finish(e.ctr(e.space(), pulling(image)...)) }()
	longest := time.Duration(0)
	stop := e.collecting(running)
	for n := 0; len(pulled) == 0; n++ {
		begun := time.Now()
		e.runs(running, fmt.Sprint("busy", n), "true")
		longest = max(longest, time.Since(begun))
	}
	stop()
	r := <-pulled
	t.Logf("the pull takes %v, and a container started at most %v", r.took, longest)
	if longest > 15*time.Second {
		t.Errorf("a container started within %v", longest)
	}
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got := e.runs(image, "one", "/opt/tool", "x"); got != "tool: x\n" {
		t.Errorf("a container prints %q", got)
	}
	if r.took > 25*time.Second {
		t.Errorf("the pull takes %v: it waits for more than the first layer", r.took)
	}
	e.does("image", "rm", "--sync", image, running)
	e.leavesNoTree()
}
