package snapshotter_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// stormRoot is set in a process that is to be killed, to the root that it works in.
const stormRoot = "IMGFS_TEST_STORM_ROOT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(stormRoot); dir != "" {
		if err := storm(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// stormImages are two images with a common base.
func stormImages(trees *fakeTrees) map[snapshotter.Image]*fakeImage {
	trees.add("base", "a", "b")
	trees.add("derived", "a", "b", "c")
	return trees.images
}

// storm has clients pull images, run containers, commit and remove until the process ends.
func storm(dir string) error {
	ctx := context.Background()
	trees := newFakeTrees(nil)
	images := stormImages(trees)
	s, err := snapshotter.New(ctx, dir, trees, nil)
	if err != nil {
		return err
	}
	fmt.Println("working")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
			for n := 0; ; n++ {
				for img, made := range images { // in any order
					unattended(ctx, s, img, made, random, fmt.Sprintf("ns%d/%d-%d/", i, os.Getpid(), n))
				}
			}
		})
	}
	all.Wait()
	return nil
}

// unattended is what a client does that looks at no error.
func unattended(ctx context.Context, s *snapshotter.Snapshotter, img snapshotter.Image, made *fakeImage, random *rand.Rand, keys string) {
	parent := ""
	for i, chain := range chains(made.diffIDs) {
		ask := labels(img, chain)
		if random.IntN(4) == 0 {
			delete(ask, snapshots.LabelSnapshotRef) // unpacked
		}
		key := fmt.Sprint(keys, img.Ref, i)
		if _, err := s.Prepare(ctx, key, parent, snapshots.WithLabels(ask)); err == nil {
			_ = s.Commit(ctx, key+"-committed", key)
			parent = key + "-committed"
		} else {
			parent = chain.String()
		}
	}
	_, _ = s.Stat(ctx, parent)
	_, _ = s.Prepare(ctx, keys+img.Ref+"-container", parent)
	_ = s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if random.IntN(3) == 0 {
			go s.Remove(ctx, info.Name)
		}
		return nil
	})
	if random.IntN(4) == 0 {
		_ = s.Cleanup(ctx)
	}
}

// TestKilled: a process that is killed at any point leaves a root that the next one goes on
// with: what snapshots need is there, and nothing else.
func TestKilled(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	dir := t.TempDir()
	for round := range rounds {
		killedOnce(t, dir, time.Duration(rand.Int64N(int64(60*time.Millisecond))))
		checkRoot(t, dir, round%4 == 3)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// killedOnce has a process work in a root, and kills it.
func killedOnce(t *testing.T, dir string, after time.Duration) {
	t.Helper()
	child := testenv.Child(t, stormRoot, dir)
	var errors strings.Builder
	child.Stderr = &errors
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Errorf("it has not begun: %v", err)
	}
	time.Sleep(after) // anywhere
	_ = child.Process.Kill()
	_ = child.Wait()
	if errors.Len() > 0 {
		t.Errorf("it said: %s", errors.String())
	}
}

// checkRoot checks that every snapshot can be used, and with remove that nothing is left when
// all have been removed.
func checkRoot(t *testing.T, dir string, remove bool) {
	t.Helper()
	ctx := t.Context()
	trees := newFakeTrees(t)
	stormImages(trees)
	s, err := snapshotter.New(ctx, dir, trees, &snapshotter.Options{Warnf: t.Errorf})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all := walk(t, s)
	own, needed := 0, map[string]bool{}
	for _, info := range all {
		if ref := info.Labels[snapshots.LabelSnapshotRef]; ref == "" {
			own++
		} else {
			needed[ref] = true
		}
		if _, err := s.Stat(ctx, info.Name); err != nil {
			t.Errorf("Stat %s: %v", info.Name, err)
		}
		if info.Kind == snapshots.KindCommitted {
			if _, err := s.View(ctx, "check", info.Name); err != nil {
				t.Errorf("View of %s: %v", info.Name, err)
			}
			if err := s.Remove(ctx, "check"); err != nil {
				t.Errorf("Remove: %v", err)
			}
		} else if _, err := s.Mounts(ctx, info.Name); err != nil {
			t.Errorf("Mounts of %s: %v", info.Name, err)
		}
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if snapshotDirs, chainDirs := files(t, dir); len(snapshotDirs) != own || len(chainDirs) != len(needed) {
		t.Errorf("%d directories for %d snapshots, and %d for %d chains", len(snapshotDirs), own, len(chainDirs), len(needed))
	}
	if !remove {
		return
	}
	for len(all) > 0 && !t.Failed() {
		for _, info := range all {
			if err := s.Remove(ctx, info.Name); err != nil && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("Remove %s: %v", info.Name, err)
			}
		}
		all = walk(t, s)
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if snapshotDirs, chainDirs := files(t, dir); len(snapshotDirs)+len(chainDirs) > 0 {
		t.Errorf("left: %q %q", snapshotDirs, chainDirs)
	}
}

// walk returns all snapshots.
func walk(t *testing.T, s *snapshotter.Snapshotter) (all []snapshots.Info) {
	t.Helper()
	if err := s.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		all = append(all, info)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
