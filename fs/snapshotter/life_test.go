package snapshotter_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
)

func ownID(t *testing.T) int    { t.Helper(); return os.Geteuid() }
func ownGroup(t *testing.T) int { t.Helper(); return os.Getegid() }

// TestRemove: with the last snapshot that needs it a chain's mount ends, and nothing is left.
func TestRemove(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a", "b")
	s, dir := open(t, trees, nil)
	one, two := newNamespace(t, s, "one"), newNamespace(t, s, "two")
	all := chains(made.diffIDs)
	if one.prepare("", all[0], nil) || !one.prepare(all[0].String(), all[1], labels(img, all[1])) {
		t.Fatal("the first layer is not unpacked, or the second one is")
	}
	two.pull(img, made.diffIDs)
	mounts, err := s.Prepare(t.Context(), "container", two.keys[all[1].String()])
	if err != nil {
		t.Fatal(err)
	}
	lower := lowerOf(t, mounts)[0]
	cleanup := func() {
		t.Helper()
		if err := s.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), two.keys[all[1].String()]); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removing what a container needs: %v", err)
	}
	if err := s.Remove(t.Context(), "container"); err != nil {
		t.Fatal(err)
	}
	two.remove(all[1].String(), all[0].String())
	cleanup()
	tree(t, lower) // for the other namespace
	one.remove(all[1].String())
	eventually(t, "the mount ends by itself", func() bool { return s.Stats().Unmounts == 1 })
	one.remove(all[0].String())
	cleanup()
	if snapshotDirs, chainDirs := files(t, dir); len(snapshotDirs)+len(chainDirs) > 0 {
		t.Errorf("left: %q %q", snapshotDirs, chainDirs)
	}
	if n := s.Stats(); n.Chains != 0 || n.Mounted != 0 || n.Unmounts != 1 {
		t.Errorf("counted %+v", n)
	}
	if err := s.Remove(t.Context(), "container"); !errdefs.IsNotFound(err) {
		t.Errorf("removing it again: %v", err)
	}
}

// TestMended: a tree that nobody serves any more is mounted again, in its place.
func TestMended(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	s, _ := open(t, trees, nil)
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	mounts, err := s.Prepare(t.Context(), "container", top(made.diffIDs))
	if err != nil {
		t.Fatal(err)
	}
	lower := lowerOf(t, mounts)[0]
	if err := os.Rename(filepath.Join(lower, "live"), filepath.Join(lower, "dead")); err != nil {
		t.Fatal(err)
	}
	again, err := s.Mounts(t.Context(), "container")
	if err != nil || !slices.Equal(lowerOf(t, again), []string{lower}) || tree(t, lower) != made.diffIDs[0] {
		t.Errorf("Mounts: %v, %v", again, err)
	}
	if n := s.Stats(); n.Mounts != 2 || n.Mended != 1 {
		t.Errorf("counted %+v", n)
	}
}

// TestRestart: what was mounted goes on, what was indexed is not again, and what is left of
// a process that was killed is removed, but nothing else.
func TestRestart(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a", "b")
	s, dir := open(t, trees, nil)
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	mounts, err := s.Prepare(t.Context(), "container", top(made.diffIDs))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "chains", strings.Repeat("ab", 32), "tree")
	for _, name := range []string{stray, filepath.Join(dir, "snapshots/77/fs/etc"), filepath.Join(dir, "removed/5-x/fs")} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(stray, "live"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(stray), ".new-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := openIn(t, dir, trees, nil)
	snapshotDirs, chainDirs := files(t, dir)
	if len(snapshotDirs) != 1 || len(chainDirs) != 2 {
		t.Errorf("there are %q and %q, want a container's and two chains", snapshotDirs, chainDirs)
	}
	for _, layer := range chains(made.diffIDs) {
		if _, err := again.Stat(t.Context(), layer.String()); err != nil {
			t.Errorf("Stat: %v", err)
		}
	}
	if got, err := again.Mounts(t.Context(), "container"); err != nil || !slices.Equal(lowerOf(t, got), lowerOf(t, mounts)) {
		t.Errorf("Mounts: %v, %v", got, err)
	}
	if len(trees.mountedNow()) != 1 || trees.indexes != 1 {
		t.Errorf("%d mounts and %d passes, want one of each", len(trees.mountedNow()), trees.indexes)
	}
}

// TestRestartDuringPass: a pass that was cut off is begun again by whoever asks next.
func TestRestartDuringPass(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	made.indexing = make(chan struct{})
	s, dir := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	chain := chains(made.diffIDs)[0]
	ns.prepare("", chain, labels(img, chain))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	close(made.indexing)
	again := openIn(t, dir, trees, nil)
	if _, err := again.Stat(t.Context(), chain.String()); err != nil {
		t.Errorf("Stat: %v", err)
	}
}

// TestKnown: other processes see which images a root has, while it is kept, and none where
// there is no root.
func TestKnown(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a", "b")
	s, dir := open(t, trees, nil)
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	if got, err := snapshotter.Known(dir); err != nil || len(got) != 1 || got[0] != img {
		t.Errorf("got %v, %v, want %v", got, err, img)
	}
	if got, err := snapshotter.Known(t.TempDir()); err != nil || len(got) > 0 {
		t.Errorf("without a root: %v, %v", got, err)
	}
}

// TestRecordLost: a chain whose record is damaged is mended by pulling an image with it.
func TestRecordLost(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	s, dir := open(t, trees, nil)
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	chain := top(made.diffIDs)
	name := filepath.Join(dir, "chains", strings.TrimPrefix(chain, "sha256:"), "record.json")
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := openIn(t, dir, trees, nil)
	if _, err := again.Stat(t.Context(), chain); !errdefs.IsUnavailable(err) {
		t.Errorf("Stat: %v", err)
	}
	if n := newNamespace(t, again, "other").pull(img, made.diffIDs); n != 1 {
		t.Error("the layer is unpacked")
	}
	if _, err := again.Prepare(t.Context(), "container", chain); err != nil {
		t.Error(err)
	}
}

// TestRoots: roots that are not this snapshotter's alone are refused with the reason.
func TestRoots(t *testing.T) {
	trees := newFakeTrees(t)
	_, used := open(t, trees, nil)
	old, foreign, shared := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "version"), []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(foreign, "metadata.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		used: "another process", old: `version "0"`, foreign: "another snapshotter", shared: "others may write", filepath.Join(t.TempDir(), "a:b"): "colon",
	} {
		s, err := snapshotter.New(t.Context(), dir, trees, nil)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(foreign, "version")); err == nil {
		t.Error("the root of another snapshotter was written to")
	}
}

// TestStorm: clients of four namespaces pull, run and remove at once. Nothing that one does
// is undone by another, and in the end nothing is left.
func TestStorm(t *testing.T) {
	trees := newFakeTrees(t)
	base, its := trees.add("base", "a", "b")
	derived, other := trees.add("derived", "a", "b", "c")
	s, dir := open(t, trees, nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			ns := newNamespace(t, s, fmt.Sprint("ns", i%4, "-", i))
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 20 {
				img, made := base, its
				if random.IntN(2) == 0 {
					img, made = derived, other
				}
				stormOnce(t, ns, img, made, random)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for { // as containerd's garbage collector: children first
		var keys []string
		if err := s.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error { keys = append(keys, info.Name); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			if err := s.Remove(t.Context(), key); err != nil && !errdefs.IsFailedPrecondition(err) {
				t.Fatal(err)
			}
		}
	}
	if err := s.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if snapshotDirs, chainDirs := files(t, dir); len(snapshotDirs)+len(chainDirs) > 0 {
		t.Errorf("left: %q %q", snapshotDirs, chainDirs)
	}
	if n := s.Stats(); n.Chains != 0 || n.Mounts != n.Unmounts {
		t.Errorf("counted %+v", n)
	}
}

// stormOnce pulls an image, runs a container, and removes both as far as others let it. What
// somebody else removes meanwhile it does not find.
func stormOnce(t *testing.T, ns *namespace, img snapshotter.Image, made *fakeImage, random *rand.Rand) {
	ctx, parent := t.Context(), ""
	for _, chain := range chains(made.diffIDs) {
		_, err := ns.s.Prepare(ctx, ns.key("extract"), parent, snapshots.WithLabels(labels(img, chain)))
		if errdefs.IsNotFound(err) {
			return
		}
		if !errdefs.IsAlreadyExists(err) {
			t.Errorf("Prepare: %v", err)
			return
		}
		parent = chain.String()
	}
	if _, err := ns.s.Stat(ctx, parent); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) {
		t.Errorf("Stat: %v", err)
	}
	key := ns.key("container")
	mounts, err := ns.s.Prepare(ctx, key, parent)
	switch {
	case err == nil:
		if got := tree(t, lowerOf(t, mounts)[0]); got != made.diffIDs[len(made.diffIDs)-1] {
			t.Errorf("a container of %s has the tree of layer %s", img.Ref, got)
		}
		if err := ns.s.Remove(ctx, key); err != nil {
			t.Errorf("Remove: %v", err)
		}
	case !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err):
		t.Errorf("a container: %v", err)
	}
	for _, chain := range slices.Backward(chains(made.diffIDs)) {
		if err := ns.s.Remove(ctx, chain.String()); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("Remove: %v", err)
		}
	}
	if random.IntN(4) == 0 {
		if err := ns.s.Cleanup(ctx); err != nil {
			t.Errorf("Cleanup: %v", err)
		}
	}
}
