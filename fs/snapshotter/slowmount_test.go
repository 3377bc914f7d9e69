package snapshotter_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
)

// TestMountTakesLong: who prepares a container waits for a mount for a while only, and Mounts
// until its caller leaves. The mount goes on, once for all, and is there for the next one.
func TestMountTakesLong(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	made.mounting = make(chan struct{})
	s, dir := open(t, trees, &snapshotter.Options{MountWait: 20 * time.Millisecond})
	ns := newNamespace(t, s, "default")
	ns.pull(img, made.diffIDs)
	name := top(made.diffIDs)
	for range 2 {
		if _, err := s.Prepare(t.Context(), "container", name); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "try again") {
			t.Errorf("Prepare: %v", err)
		}
		if _, err := s.View(t.Context(), "container", name); !errdefs.IsUnavailable(err) {
			t.Errorf("View: %v", err)
		}
	}
	if snapshotDirs, _ := files(t, dir); len(snapshotDirs) > 0 {
		t.Errorf("left: %q", snapshotDirs)
	}
	close(made.mounting)
	eventually(t, "it is mounted", func() bool { return s.Stats().Mounted == 1 })
	mounts, err := s.Prepare(t.Context(), "container", name)
	if err != nil {
		t.Fatal(err)
	}
	tree(t, lowerOf(t, mounts)[0])
	if n := s.Stats(); n.Mounts != 1 || n.MountFailures != 0 {
		t.Errorf("counted %+v", n)
	}
}

// TestMountsWaits: Mounts, for which containerd has no lock, waits for a mount.
func TestMountsWaits(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	s, _ := open(t, trees, &snapshotter.Options{MountWait: time.Minute})
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	mounts, err := s.Prepare(t.Context(), "container", top(made.diffIDs))
	if err != nil {
		t.Fatal(err)
	}
	lower := lowerOf(t, mounts)[0]
	if err := trees.Unmount(t.Context(), lower); err != nil { // as after a boot
		t.Fatal(err)
	}
	trees.set(func() { made.mounting = make(chan struct{}) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Mounts(ctx, "container"); err == nil || ctx.Err() == nil {
		t.Errorf("Mounts: %v before its caller leaves", err)
	}
	close(made.mounting)
	if _, err := s.Mounts(t.Context(), "container"); err != nil {
		t.Error(err)
	}
	tree(t, lower)
}

// TestMountAbandoned: a mount that is under way ends when its image is removed, and when the
// snapshotter is closed.
func TestMountAbandoned(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	made.mounting = make(chan struct{})
	opts := &snapshotter.Options{MountWait: time.Millisecond}
	s, dir := open(t, trees, opts)
	for range 2 {
		ns := newNamespace(t, s, "default")
		ns.pull(img, made.diffIDs)
		if _, err := s.Prepare(t.Context(), "container", top(made.diffIDs)); !errdefs.IsUnavailable(err) {
			t.Errorf("Prepare: %v", err)
		}
		ns.remove(top(made.diffIDs))
		if err := s.Cleanup(t.Context()); err != nil {
			t.Error(err)
		}
		if snapshotDirs, chainDirs := files(t, dir); len(snapshotDirs)+len(chainDirs) > 0 {
			t.Errorf("left: %q %q", snapshotDirs, chainDirs)
		}
	}
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	if _, err := s.Prepare(t.Context(), "container", top(made.diffIDs)); !errdefs.IsUnavailable(err) {
		t.Errorf("Prepare: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Prepare(t.Context(), "container", top(made.diffIDs)); err == nil {
		t.Error("Prepare after Close succeeds")
	}
}
