package snapshotter_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
)

// TestPull: nothing is unpacked of an image, and a container has one lower directory, with
// the tree of all layers.
func TestPull(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("docker.io/library/node:22", "a", "b", "c")
	s, dir := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	if n := ns.pull(img, made.diffIDs); n != 3 {
		t.Errorf("%d of 3 layers are lazy", n)
	}
	if mounts := trees.mountedNow(); len(mounts) > 0 {
		t.Errorf("before a container needs it there is mounted %q", mounts)
	}
	name := ns.keys[top(made.diffIDs)]
	if name != top(made.diffIDs) {
		t.Errorf("the snapshot has the name %s, want the chain id", name)
	}
	mounts, err := s.Prepare(t.Context(), "default/9/container", name)
	if err != nil {
		t.Fatal(err)
	}
	lower := lowerOf(t, mounts)
	if want := []string{filepath.Join(dir, "chains", strings.TrimPrefix(top(made.diffIDs), "sha256:"), "tree")}; !slices.Equal(lower, want) {
		t.Fatalf("lower directories %q, want %q", lower, want)
	}
	if got := tree(t, lower[0]); got != made.diffIDs[2] {
		t.Errorf("the tree ends with layer %s, want %s", got, made.diffIDs[2])
	}
	if usage, err := s.Usage(t.Context(), name); err != nil || usage != (snapshots.Usage{}) {
		t.Errorf("usage %+v, %v", usage, err)
	}
	view, err := s.View(t.Context(), "default/10/view", name)
	if err != nil {
		t.Fatal(err)
	}
	if len(view) != 1 || view[0].Type != "bind" || view[0].Source != lower[0] || !slices.Contains(view[0].Options, "ro") {
		t.Errorf("a view has %v", view)
	}
	again, err := s.Mounts(t.Context(), "default/9/container")
	if err != nil || !slices.Equal(lowerOf(t, again), lower) {
		t.Errorf("Mounts: %v, %v", again, err)
	}
	if got, want := trees.mountedNow(), []string{"docker.io/library/node:22 3"}; !slices.Equal(got, want) {
		t.Errorf("mounts %q, want %q", got, want)
	}
	if n := s.Stats(); n.Lazy != 3 || n.Chains != 3 || n.Mounted != 1 || n.Mounts != 1 || n.Passes != 1 || len(n.Fallbacks) > 0 {
		t.Errorf("counted %+v", n)
	}
}

// TestPrepareDoesNotWait: while layers are indexed everything is answered at once but Stat.
func TestPrepareDoesNotWait(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("big", "a", "b")
	made.indexing = make(chan struct{})
	s, _ := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	all := chains(made.diffIDs)
	if !ns.prepare("", all[0], labels(img, all[0])) {
		t.Fatal("the layer is unpacked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	statted := make(chan error, 2)
	for _, ctx := range []context.Context{ctx, t.Context()} {
		go func() {
			_, err := s.Stat(ctx, all[0].String())
			statted <- err
		}()
	}
	eventually(t, "both wait", func() bool { return s.Stats().Waits == 2 })
	if !ns.prepare(all[0].String(), all[1], labels(img, all[1])) {
		t.Error("the second layer is unpacked")
	}
	if _, err := s.Prepare(t.Context(), "default/8/container", all[1].String()); !errdefs.IsUnavailable(err) {
		t.Errorf("a container on it: %v, want unavailable", err)
	}
	cancel()
	if err := <-statted; !errors.Is(err, context.Canceled) {
		t.Errorf("Stat whose caller has left: %v", err)
	}
	close(made.indexing)
	if err := <-statted; err != nil {
		t.Errorf("Stat: %v", err)
	}
	if _, err := s.Stat(t.Context(), all[1].String()); err != nil {
		t.Errorf("Stat of the second: %v", err)
	}
	if _, err := s.Prepare(t.Context(), "default/9/container", all[1].String()); err != nil {
		t.Errorf("a container, then: %v", err)
	}
	if trees.indexes != 1 {
		t.Errorf("%d passes, want 1", trees.indexes)
	}
}

// TestFallback: whatever is wrong with what labels say, the layer is unpacked, and containerd
// does not find it for a lazy one.
func TestFallback(t *testing.T) {
	trees := newFakeTrees(t)
	good, made := trees.add("good", "a", "b")
	all := chains(made.diffIDs)
	unsupported, _ := trees.add("unsupported", "a")
	trees.images[unsupported].noDiffIDs = snapshotter.ErrUnsupported
	secret, _ := trees.add("secret", "a")
	trees.images[secret].noDiffIDs = errors.New("401 Unauthorized")
	slow, _ := trees.add("slow", "a")
	trees.images[slow].looking = make(chan struct{})
	first := labels(good, all[0])
	for _, c := range []struct {
		name   string
		labels map[string]string
		parent bool
		reason snapshotter.Reason
	}{
		{"no image", map[string]string{snapshots.LabelSnapshotRef: all[0].String()}, false, snapshotter.NoImage},
		{"another image's chain", labels(good, digest.FromString("c")), false, snapshotter.BadLabels},
		{"layer in place of chain", labels(good, made.diffIDs[1]), false, snapshotter.BadLabels},
		{"no digest", with(first, snapshots.LabelSnapshotRef, "latest"), false, snapshotter.BadLabels},
		{"way out", with(first, snapshots.LabelSnapshotRef, "sha256:../../../../../etc"), false, snapshotter.BadLabels},
		{"sha512", with(first, snapshots.LabelSnapshotRef, digest.SHA512.FromString("a").String()), false, snapshotter.BadLabels},
		{"manifest", with(first, "containerd.io/snapshot/cri.manifest-digest", "sha256:1"), false, snapshotter.BadLabels},
		{"no ref", with(first, "containerd.io/snapshot/cri.image-ref", ""), false, snapshotter.BadLabels},
		{"long ref", with(first, "containerd.io/snapshot/cri.image-ref", strings.Repeat("a", 5000)), false, snapshotter.BadLabels},
		{"second layer without parent", labels(good, all[1]), false, snapshotter.BadLabels},
		{"first layer with parent", first, true, snapshotter.BadLabels},
		{"unknown", labels(snapshotter.Image{Ref: "other", Digest: good.Digest}, all[0]), false, snapshotter.Unreachable},
		{"unauthorized", labels(secret, all[0]), false, snapshotter.Unreachable},
		{"registry hangs", labels(slow, all[0]), false, snapshotter.Unreachable},
		{"unsupported", labels(unsupported, all[0]), false, snapshotter.Unsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dir := open(t, trees, &snapshotter.Options{CheckTimeout: 1})
			ns := newNamespace(t, s, "default")
			parent := ""
			if c.parent {
				parent = digest.FromString("base").String()
				ns.prepare("", digest.Digest(parent), nil)
			}
			if ns.prepare(parent, digest.FromString("unpacked"), c.labels) {
				t.Fatal("it is lazy")
			}
			if n := s.Stats(); n.Fallbacks[c.reason] != 1 || len(n.Fallbacks) != 1 {
				t.Errorf("counted %v, want one %s", n.Fallbacks, c.reason)
			}
			info, err := s.Stat(t.Context(), ns.keys[digest.FromString("unpacked").String()])
			if _, has := info.Labels[snapshots.LabelSnapshotRef]; err != nil || has {
				t.Errorf("it has labels %v, %v", info.Labels, err)
			}
			if err := s.Cleanup(t.Context()); err != nil {
				t.Error(err)
			}
			if _, chainDirs := files(t, dir); len(chainDirs) > 0 {
				t.Errorf("chains %q", chainDirs)
			}
		})
	}
}

// with returns labels with another value for one.
func with(labels map[string]string, key, value string) map[string]string {
	changed := map[string]string{key: value}
	for k, v := range labels {
		if k != key {
			changed[k] = v
		}
	}
	return changed
}

// TestLabelIsOurs: no way to label a snapshot makes one lazy that is not, or the other way round.
func TestLabelIsOurs(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	s, _ := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	ns.pull(img, made.diffIDs)
	chain := chains(made.diffIDs)[0]
	ref := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: digest.FromString("b").String()})
	ctx := t.Context()
	if _, err := s.View(ctx, "view", chain.String(), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(ctx, "active", "", ref); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, "committed", "active", ref); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"view", "committed", chain.String()} {
		for _, paths := range [][]string{nil, {"labels"}, {"labels." + snapshots.LabelSnapshotRef}, {"labels.other"}} {
			info := snapshots.Info{Name: name, Labels: map[string]string{"other": "kept", snapshots.LabelSnapshotRef: digest.FromString("b").String()}}
			updated, err := s.Update(ctx, info, paths...)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if name == chain.String() {
				want = chain.String()
			}
			stored, err := s.Stat(ctx, name)
			if err != nil || updated.Labels[snapshots.LabelSnapshotRef] != want || stored.Labels[snapshots.LabelSnapshotRef] != want {
				t.Errorf("%s, fields %q: updated %v, stored %v, %v", name, paths, updated.Labels, stored.Labels, err)
			}
			if len(paths) != 1 || paths[0] != "labels."+snapshots.LabelSnapshotRef {
				if stored.Labels["other"] != "kept" {
					t.Errorf("%s, fields %q: %v", name, paths, stored.Labels)
				}
			}
		}
	}
}

// TestPassFails: the pull that waits is told why, and the next one unpacks.
func TestPassFails(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a", "b")
	made.noIndex = errors.New("layer 2 is not what its diff id says")
	s, dir := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	chain := chains(made.diffIDs)[0]
	if !ns.prepare("", chain, labels(img, chain)) {
		t.Fatal("the layer is unpacked")
	}
	_, err := s.Stat(t.Context(), chain.String())
	if !errdefs.IsUnavailable(err) || errdefs.IsNotFound(err) || !strings.Contains(err.Error(), made.noIndex.Error()) {
		t.Errorf("Stat: %v", err)
	}
	ns.remove(chain.String())
	if err := s.Cleanup(t.Context()); err != nil {
		t.Error(err)
	}
	if snapshotDirs, chainDirs := files(t, dir); len(snapshotDirs)+len(chainDirs) > 0 {
		t.Errorf("left: %q %q", snapshotDirs, chainDirs)
	}
	if n := ns.pull(img, made.diffIDs); n != 0 {
		t.Errorf("then %d layers are lazy", n)
	}
	if n := s.Stats(); n.PassFailures != 1 || n.Fallbacks[snapshotter.PassFailed] != 2 {
		t.Errorf("counted %+v", n)
	}
}

// TestPassFailsForgotten: after a while it is tried again.
func TestPassFailsForgotten(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	made.noIndex = errors.New("the registry is away")
	s, _ := open(t, trees, &snapshotter.Options{RememberPass: 1})
	ns := newNamespace(t, s, "default")
	chain := chains(made.diffIDs)[0]
	ns.prepare("", chain, labels(img, chain))
	if _, err := s.Stat(t.Context(), chain.String()); !errdefs.IsUnavailable(err) {
		t.Fatalf("Stat: %v", err)
	}
	trees.set(func() { made.noIndex = nil })
	eventually(t, "the snapshot can be used", func() bool {
		_, err := s.Stat(t.Context(), chain.String())
		return err == nil
	})
}

// TestPullAbandoned: a pass ends when the last snapshot that needs it is removed, and is not
// remembered as one that failed.
func TestPullAbandoned(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	made.indexing = make(chan struct{})
	s, _ := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	chain := chains(made.diffIDs)[0]
	ns.prepare("", chain, labels(img, chain))
	statted := make(chan error)
	go func() {
		_, err := s.Stat(t.Context(), chain.String())
		statted <- err
	}()
	eventually(t, "it waits", func() bool { return s.Stats().Waits == 1 })
	ns.remove(chain.String())
	if err := <-statted; !errdefs.IsUnavailable(err) {
		t.Errorf("Stat: %v", err)
	}
	close(made.indexing)
	if n := ns.pull(img, made.diffIDs); n != 1 {
		t.Error("then the layer is unpacked")
	}
}
