package snapshotter_test

import (
	"context"
	"errors"
	"fmt"
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

// TestUnpackedOnLazy: an image made of a lazy one has its own layers above that tree.
func TestUnpackedOnLazy(t *testing.T) {
	trees := newFakeTrees(t)
	base, made := trees.add("base", "a", "b")
	derived, its := trees.add("derived", "a", "b", "c", "d")
	its.noDiffIDs = errors.New("no such manifest")
	s, dir := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	ns.pull(base, made.diffIDs)
	all := chains(its.diffIDs)
	for i := 2; i < 4; i++ {
		if ns.prepare(all[i-1].String(), all[i], labels(derived, all[i])) {
			t.Fatalf("layer %d is lazy", i+1)
		}
	}
	mounts, err := s.Prepare(t.Context(), "container", ns.keys[all[3].String()])
	if err != nil {
		t.Fatal(err)
	}
	lower := lowerOf(t, mounts)
	if len(lower) != 3 || filepath.Base(lower[0]) != "fs" || filepath.Base(lower[1]) != "fs" || tree(t, lower[2]) != made.diffIDs[1] {
		t.Errorf("lower directories %q", lower)
	}
	if snapshotDirs, _ := files(t, dir); len(snapshotDirs) != 3 {
		t.Errorf("directories %q, want two layers' and a container's", snapshotDirs)
	}
}

// TestLazyOnUnpacked: a chain of which a lower part is unpacked in one namespace, and lazy in
// another, is one chain, and each namespace finds the snapshot on its own parent.
func TestLazyOnUnpacked(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a", "b")
	s, _ := open(t, trees, nil)
	all := chains(made.diffIDs)
	one, other, third := newNamespace(t, s, "one"), newNamespace(t, s, "other"), newNamespace(t, s, "third")
	if one.prepare("", all[0], nil) || !one.prepare(all[0].String(), all[1], labels(img, all[1])) {
		t.Fatal("the first layer is not unpacked, or the second one is")
	}
	if n := other.pull(img, made.diffIDs); n != 2 {
		t.Fatalf("%d of 2 layers are lazy", n)
	}
	if third.prepare("", all[0], nil) || !third.prepare(all[0].String(), all[1], labels(img, all[1])) {
		t.Fatal("the first layer is not unpacked, or the second one is")
	}
	names := map[string]bool{}
	for _, ns := range []*namespace{one, other, third} {
		name := ns.keys[all[1].String()]
		names[name] = true
		mounts, err := s.Prepare(t.Context(), ns.key("container"), name)
		if err != nil {
			t.Fatal(err)
		}
		if lower := lowerOf(t, mounts); len(lower) != 1 || tree(t, lower[0]) != made.diffIDs[1] {
			t.Errorf("%s: lower directories %q", ns.name, lower)
		}
	}
	if len(names) != 3 {
		t.Errorf("names %v, want three", names)
	}
	if got := trees.mountedNow(); !slices.Equal(got, []string{"image 2"}) {
		t.Errorf("mounts %q", got)
	}
}

// TestSources: a chain that a second image has is mounted as a part of that if the registry
// of the first one is away, and the other way round.
func TestSources(t *testing.T) {
	for _, away := range []string{"first", "second"} {
		t.Run(away, func(t *testing.T) {
			trees := newFakeTrees(t)
			first, its := trees.add("first", "a", "b")
			second, other := trees.add("second", "a", "b", "c")
			s, dir := open(t, trees, nil)
			one, two := newNamespace(t, s, "one"), newNamespace(t, s, "two")
			one.pull(first, its.diffIDs)
			if n := two.pull(second, other.diffIDs); n != 3 {
				t.Fatalf("%d of 3 layers are lazy", n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			trees.set(func() {
				for img, made := range trees.images {
					if img.Ref == away {
						made.noMount = errors.New("no answer")
					}
				}
			})
			again := openIn(t, dir, trees, nil)
			if _, err := again.Prepare(t.Context(), "container", top(its.diffIDs)); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"first": "second 2", "second": "first 2"}[away]
			if got := trees.mountedNow(); !slices.Equal(got, []string{want}) {
				t.Errorf("mounts %q, want %q", got, want)
			}
			trees.set(func() {
				for _, made := range trees.images {
					made.noMount = errors.New("no answer")
				}
			})
			_, err := again.Prepare(t.Context(), "another", top(other.diffIDs))
			if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "no answer") {
				t.Errorf("with both away: %v", err)
			}
			if _, err := again.Stat(t.Context(), "another"); !errdefs.IsNotFound(err) {
				t.Errorf("a container that has no mounts has a snapshot: %v", err)
			}
		})
	}
}

// provenIn returns how many sources of the chains below a root are proven.
func provenIn(t *testing.T, root string) (n int) {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(root, "chains", "*", "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range records {
		text, _ := os.ReadFile(name) // it may be replaced
		n += strings.Count(string(text), `"proven":true`)
	}
	return n
}

// TestUnproven: an image whose layers nobody has read is not mounted for others that have its
// chain, and as many of them as there may be do not take the place of one that was.
func TestUnproven(t *testing.T) {
	trees := newFakeTrees(t)
	s, dir := open(t, trees, nil)
	good, its := trees.add("good", "base")
	newNamespace(t, s, "default").pull(good, its.diffIDs)
	for i := range 40 {
		img, made := trees.add(fmt.Sprint("silent", i), "base")
		made.indexing, made.noMount = make(chan struct{}), errors.New("no answer")
		newNamespace(t, s, fmt.Sprint("ns", i)).pull(img, made.diffIDs)
	}
	if n := provenIn(t, dir); n != 1 {
		t.Errorf("%d sources are proven, want one", n)
	}
	if _, err := s.Prepare(t.Context(), "container", top(its.diffIDs)); err != nil {
		t.Error(err)
	}
	if got := trees.mountedNow(); !slices.Equal(got, []string{"good 1"}) || s.Stats().MountFailures != 0 {
		t.Errorf("mounts %q, %d failures", got, s.Stats().MountFailures)
	}
}

// TestManySources: a base of thousands of images has a record of bounded length.
func TestManySources(t *testing.T) {
	trees := newFakeTrees(t)
	s, dir := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	var last string
	for i := range 50 {
		img, made := trees.add(fmt.Sprint("image", i), "base")
		newNamespace(t, s, fmt.Sprint("ns", i)).pull(img, made.diffIDs)
		last = top(made.diffIDs)
		eventually(t, "its pass is noted", func() bool { return provenIn(t, dir) == min(i+1, 32) })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	trees.set(func() {
		for img, made := range trees.images {
			if img.Ref != "image18" { // the last but 31
				made.noMount = errors.New("no answer")
			}
		}
	})
	again := openIn(t, dir, trees, nil)
	ns.s = again
	if _, err := again.Prepare(t.Context(), "container", last); err != nil {
		t.Errorf("the 32nd source from the end is forgotten: %v", err)
	}
}

// TestOneMount: containers that start at once have one mount.
func TestOneMount(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a", "b")
	s, _ := open(t, trees, nil)
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			mounts, err := s.Prepare(t.Context(), fmt.Sprint("container", i), top(made.diffIDs))
			if err != nil || len(mounts) != 1 {
				t.Errorf("Prepare: %v, %v", mounts, err)
			}
		})
	}
	all.Wait()
	if got := trees.mountedNow(); len(got) != 1 {
		t.Errorf("mounts %q", got)
	}
}

// TestUserNamespaces: labels of a user namespace become options of mounts if the trees can
// be mapped, and are checked.
func TestUserNamespaces(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	for _, remap := range []bool{false, true} {
		s, _ := open(t, trees, &snapshotter.Options{RemapIDs: remap})
		newNamespace(t, s, "default").pull(img, made.diffIDs)
		mapped := func(users, groups string) snapshots.Opt {
			return snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotUIDMapping: users, snapshots.LabelSnapshotGIDMapping: groups})
		}
		ids := fmt.Sprintf("0:%d:65536", ownID(t))
		groups := fmt.Sprintf("0:%d:10,10:0:1", ownGroup(t))
		mounts, err := s.Prepare(t.Context(), "container", top(made.diffIDs), mapped(ids, groups))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []string{"uidmap=" + ids, "gidmap=" + groups} {
			if slices.Contains(mounts[0].Options, o) != remap {
				t.Errorf("remap %v: options %q", remap, mounts[0].Options)
			}
		}
		for _, bad := range []string{"0:1", "0:1:2:3", "a:b:c", "-1:0:1", "5:1000:1", "0:1:1,", "0:4294967296:1"} {
			if _, err := s.Prepare(t.Context(), "bad "+bad, top(made.diffIDs), mapped(bad, ids)); err == nil {
				t.Errorf("mapping %q is taken", bad)
			}
		}
	}
}

// TestUpdateDuringWalk: a caller of Walk may ask for more.
func TestUpdateDuringWalk(t *testing.T) {
	trees := newFakeTrees(t)
	s, _ := open(t, trees, nil)
	if err := s.Walk(t.Context(), func(context.Context, snapshots.Info) error { return errors.New("there is none") }); err != nil {
		t.Errorf("Walk of a new root: %v", err)
	}
	img, made := trees.add("image", "a")
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	if err := s.Walk(t.Context(), func(ctx context.Context, info snapshots.Info) error {
		_, err := s.Stat(ctx, info.Name)
		return err
	}); err != nil {
		t.Errorf("Stat in Walk: %v", err)
	}
	fails := fmt.Errorf("as it comes: %w", errdefs.ErrNotFound)
	if err := s.Walk(t.Context(), func(context.Context, snapshots.Info) error { return fails }); !errors.Is(err, fails) {
		t.Errorf("an error of the caller: %v", err)
	}
}
