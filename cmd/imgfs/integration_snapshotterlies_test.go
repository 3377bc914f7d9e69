//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestSnapshotterLies: a client whose labels lie gets an ordinary snapshot, which is not taken
// for the chain that it claims to be, and what it wrote reaches no terminal.
func TestSnapshotterLies(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image, victim := pushed(t, reg, "busybox"), pushed(t, reg, "debian")
	img, other := openLayout(t, runnables(t)["busybox"]), openLayout(t, runnables(t)["debian"])
	s, ctx := e.asContainerd(), t.Context()
	first := chainsOf(img)[0]
	host := reg.Host()
	for i, c := range []struct {
		ref             string
		manifest, chain digest.Digest
	}{
		{image, img.Top.Digest, chainsOf(other)[0]},
		{image, img.Top.Digest, digest.FromString("nobody's")},
		{image, img.Top.Digest, img.DiffIDs[1]},
		{image, img.Top.Digest, chainsOf(img)[1]}, // without a parent
		{image, other.Manifest.Config.Digest, first},
		{image, digest.FromString("none"), first},
		{victim, img.Top.Digest, chainsOf(other)[0]},
		{image, "sha256:../../../../etc/passwd", first},
		{image, img.Top.Digest, "sha256:../../x"},
		{image, img.Top.Digest, digest.Digest("sha512:" + strings.Repeat("ab", 64))},
		{host + "/", img.Top.Digest, first},
		{host + "/" + strings.Repeat("y", 300), img.Top.Digest, first},
		{strings.Repeat("z", 5000), img.Top.Digest, first},
		{"--help", img.Top.Digest, first},
		{"../../etc/passwd", img.Top.Digest, first},
		{host + "/a b", img.Top.Digest, first},
		{host + "/\x1b]0;owned\a\u202e", img.Top.Digest, first},
		{host + "/a\x00b", img.Top.Digest, first},
		{host + "/a\nb@" + img.Top.Digest.String(), img.Top.Digest, first},
	} {
		key, what := fmt.Sprintf("lies/%d/extract", i), fmt.Sprintf("%.60q, %.80q, %.80q", c.ref, c.manifest, c.chain)
		begun := time.Now()
		mounts, err := s.Prepare(ctx, key, "", asking(c.ref, c.manifest, c.chain))
		if err != nil || len(mounts) != 1 || mounts[0].Type != "bind" || slices.Contains(mounts[0].Options, "ro") {
			t.Errorf("%s: %v, %v", what, mounts, err)
			continue
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: it takes %v", what, took)
		}
		if err := s.Commit(ctx, key+"-committed", key, asking(c.ref, c.manifest, c.chain)); err != nil {
			t.Errorf("%s: Commit: %v", what, err)
		}
		info, err := s.Stat(ctx, key+"-committed")
		if _, has := info.Labels[snapshots.LabelSnapshotRef]; err != nil || has {
			t.Errorf("%s: labels %q, %v", what, info.Labels, err)
		}
		if err := s.Remove(ctx, key+"-committed"); err != nil {
			t.Errorf("%s: Remove: %v", what, err)
		}
	}
	for line := range strings.Lines(e.log("snapshotter.log")) {
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("the log has %q", line)
		}
	}
	e.leavesNoTree()
	// What is said beside is not believed either, and does no harm.
	if _, err := s.Prepare(ctx, "lies/99/extract", "", asking(image, img.Top.Digest, first), snapshots.WithLabels(map[string]string{
		"containerd.io/snapshot/cri.image-layers": strings.Repeat("sha256:00,", 410), "containerd.io/snapshot/cri.layer-digest": "no digest",
	})); !errdefs.IsAlreadyExists(err) {
		t.Errorf("with odd labels beside: %v", err)
	}
	if err := s.Remove(ctx, first.String()); err != nil {
		t.Error(err)
	}
	e.leavesNoTree()
}

// TestSnapshotterManyLayers: an image of more layers than containerd's labels can name is as
// lazy as others, and is one mount.
func TestSnapshotterManyLayers(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	var layers []labimage.Layer
	for i := range 70 {
		layers = append(layers, func(a *labimage.Archive) error { return a.File(fmt.Sprint("many/", i), fmt.Sprintln(i)) })
	}
	image := pushedLayout(t, registrytest.New(t, nil), runnableWith(t, "busybox", layers...), "many")
	e.pull(image)
	if n := e.blobs(); n != 2 {
		t.Errorf("containerd's content store has %d blobs, want manifest and config", n)
	}
	if got := e.runs(image, "one", "sh", "-c", "cat /many/0 /many/69; ls /many | wc -l"); got != "0\n69\n70\n" {
		t.Errorf("a container prints %q", got)
	}
	if n := len(mountsBelow(e.root())); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestSnapshotterFullDisk: with no room for snapshots a pull fails and says so, and containers
// that run go on; with room it works again. With no room in the cache containers read right.
func TestSnapshotterFullDisk(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	e.terminates()
	disk := filepath.Join(e.dir, "disk")
	fills := func(dir string) (free func()) {
		name := filepath.Join(dir, "filler")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 64<<10); len(block) > 0; {
			if _, err := f.Write(block); err != nil {
				block = block[:len(block)/2]
			}
		}
		return func() { _ = os.Remove(name) }
	}
	onTmpfs := func(dir, size string) {
		if err := cmp.Or(os.MkdirAll(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size)); err != nil {
			t.Fatal(err)
		}
	}
	onTmpfs(disk, "24m")
	e.below = disk
	e.kill(&e.containerd)
	e.startSnapshotter()
	e.startContainerd()
	e.pull(image)
	e.keeps(image, "stays", "sleep", "1000")
	second := pushedLayout(t, reg, runnableWith(t, "busybox", noiseLayer("big", 2)), "second")
	free := fills(disk)
	if text := e.refuses(pulling(second)...); !strings.Contains(text, "no space left on device") {
		t.Errorf("on a full disk a pull says\n%s", text)
	}
	if r := e.execs("stays", "/opt/tool", "full"); r.stdout != "tool: full\n" {
		t.Errorf("on a full disk a container prints %q\n%s", r.stdout, r.stderr)
	}
	free()
	e.collects(e.space())
	e.pull(second)
	if got := e.runs(second, "one", "cat", "/srv/app/page"); got != "page\n" {
		t.Errorf("with room again a container prints %q", got)
	}
	e.end("stays")
	e.does("image", "rm", "--sync", image, second)
	e.leavesNoTree()

	e.terminates()
	onTmpfs(e.cache, "2m")
	e.startSnapshotter()
	defer fills(e.cache)()
	third := pushedLayout(t, reg, runnableWith(t, "busybox", noiseLayer("third", 3)), "third")
	e.pull(third)
	for i := range 3 {
		want := digest.FromString(noiseOf(uint64(i), 1<<20)).Encoded() + "  /third/" + fmt.Sprint(i)
		if got := e.runs(third, fmt.Sprint("third", i), "probe", "sums", "/third"); !strings.Contains(got, want) {
			t.Errorf("with no room in the cache a container reads\n%s, want %s", got, want)
		}
	}
	e.does("image", "rm", "--sync", third)
	e.leavesNoTree()
	e.terminates()
}
