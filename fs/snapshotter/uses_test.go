package snapshotter_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
)

// uses returns what Uses has of a root.
func uses(t *testing.T, root string) map[digest.Digest]*snapshotter.Use {
	t.Helper()
	all, err := snapshotter.Uses(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestUses: who needs a chain can be read while a snapshotter keeps the root, and after it.
func TestUses(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("docker.io/library/base:1", "a", "b")
	derived, its := trees.add("docker.io/library/derived:1", "a", "b", "c")
	s, root := open(t, trees, nil)
	if got := uses(t, root); len(got) > 0 {
		t.Errorf("of a new root: %v", got)
	}
	ns := newNamespace(t, s, "default")
	ns.pull(img, made.diffIDs)
	ns.pull(derived, its.diffIDs)
	base, over := chains(made.diffIDs)[1], chains(its.diffIDs)[2]
	one, two, view, plain := ns.key("one"), ns.key("with/slashes"), ns.key("view"), "no name of containerd"
	for key, parent := range map[string]string{one: ns.keys[base.String()], two: ns.keys[base.String()], plain: ns.keys[over.String()]} {
		if _, err := s.Prepare(t.Context(), key, parent); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.View(t.Context(), view, ns.keys[base.String()]); err != nil {
		t.Fatal(err)
	}
	// What was committed on a chain is between that and a container.
	if err := s.Commit(t.Context(), ns.key("committed"), two); err != nil {
		t.Fatal(err)
	}
	third := ns.key("third")
	if _, err := s.Prepare(t.Context(), third, fmt.Sprintf("default/%d/committed", ns.n-1)); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		got := uses(t, root)
		if len(got) != 3 {
			t.Fatalf("%s: %d chains, want 3", when, len(got))
		}
		if use := got[base]; use.Chain != base || !slices.Equal(use.Images, []snapshotter.Image{derived, img}) ||
			!slices.Equal(use.Holders, []snapshotter.Holder{{Namespace: "default", Key: "one"}, {Namespace: "default", Key: "third"}, {Namespace: "default", Key: "view", View: true}}) {
			t.Errorf("%s: the base: %+v", when, use)
		}
		if use := got[over]; !slices.Equal(use.Images, []snapshotter.Image{derived}) || !slices.Equal(use.Holders, []snapshotter.Holder{{Key: plain}}) {
			t.Errorf("%s: the derived one: %+v", when, use)
		}
		if use := got[chains(made.diffIDs)[0]]; use.Holders == nil || len(use.Holders) > 0 {
			t.Errorf("%s: of the first layer alone: %+v", when, use)
		}
	}
	check("while it is kept")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after that")
	where, id, ok := snapshotter.Locate(filepath.Join(root, "chains", base.Encoded(), "tree"))
	if !ok || where != root || id != base {
		t.Errorf("located at %q, %s, %v", where, id, ok)
	}
	for _, dir := range []string{"/", "/tree", "/chains/tree", "/chains/xx/tree", "/chain/" + base.Encoded() + "/tree", "/chains/" + base.Encoded(), ""} {
		if _, _, ok := snapshotter.Locate(dir); ok {
			t.Errorf("%q is located", dir)
		}
	}
}

// TestUsesDamaged: what can be read is there beside an error, and nothing waits.
func TestUsesDamaged(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	s, root := open(t, trees, nil)
	newNamespace(t, s, "default").pull(img, made.diffIDs)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	chain := chains(made.diffIDs)[0]
	database := filepath.Join(root, "metadata.db")
	good, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	put := func(text []byte) func() error {
		return func() error { return os.WriteFile(database, text, 0o600) }
	}
	page := os.Getpagesize()
	for name, damage := range map[string]func() error{
		"no database":   func() error { return nil },
		"empty":         put(nil),
		"text":          put([]byte(strings.Repeat("no database ", 1000))),
		"cut":           put(good[:2*page]),
		"pages cleared": put(append(slices.Clone(good[:2*page]), make([]byte, len(good)-2*page)...)),
		"a pipe":        func() error { return syscall.Mkfifo(database, 0o600) },
		"a link":        func() error { return os.Symlink("/dev/zero", database) },
		"large": func() error {
			return errors.Join(put(good)(), os.Truncate(database, 65<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(removeIfThere(database), damage()); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			got, err := snapshotter.Uses(t.Context(), root)
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			whole := name == "no database" || name == "empty"
			if use := got[chain]; use == nil || !slices.Equal(use.Images, []snapshotter.Image{img}) || (use.Holders == nil) == whole {
				t.Errorf("got %+v", use)
			}
			if (err == nil) != whole || err != nil && !strings.Contains(err.Error(), database) {
				t.Errorf("error %v", err)
			}
		})
	}
	if err := os.WriteFile(filepath.Join(root, "version"), []byte("17"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := snapshotter.Uses(t.Context(), root); err == nil || len(got) > 0 || !strings.Contains(err.Error(), `version "17"`) {
		t.Errorf("of another version: %v, %v", got, err)
	}
	if _, err := snapshotter.Uses(t.Context(), t.TempDir()); !os.IsNotExist(err) {
		t.Errorf("of no root: %v", err)
	}
}

// TestUsesMeanwhile: what is read while others write is always what was there at some time: a
// container that is there all the time, and of two that take turns never both.
func TestUsesMeanwhile(t *testing.T) {
	trees := newFakeTrees(t)
	img, made := trees.add("image", "a")
	s, root := open(t, trees, nil)
	ns := newNamespace(t, s, "default")
	ns.pull(img, made.diffIDs)
	parent := ns.keys[top(made.diffIDs)]
	prepare := func(key string) {
		if _, err := s.Prepare(t.Context(), key, parent); err != nil {
			t.Error(err)
		}
	}
	for i := range 50 { // more than one page
		prepare(fmt.Sprintf("default/%d/stays %s", i, strings.Repeat("x", rand.IntN(200))))
	}
	prepare("default/99/a")
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for next := 0; ctx.Err() == nil; next++ {
			was, is := fmt.Sprint("default/99/", string(rune('a'+next%2))), fmt.Sprint("default/99/", string(rune('a'+(next+1)%2)))
			if err := s.Remove(t.Context(), was); err != nil {
				t.Error(err)
			}
			prepare(is)
		}
	})
	seen := map[string]int{}
	for range 30 {
		use := uses(t, root)[chains(made.diffIDs)[0]]
		var names []string
		stays := 0
		for _, h := range use.Holders {
			if strings.HasPrefix(h.Key, "stays") {
				stays++
			} else {
				names = append(names, h.Key)
			}
		}
		if stays != 50 || len(names) > 1 {
			t.Fatalf("got %d, and %q", stays, names)
		}
		seen[strings.Join(names, "")]++
	}
	cancel()
	writer.Wait()
	if len(seen) < 2 {
		t.Errorf("nothing has changed meanwhile: %v", seen)
	}
	if err := s.Walk(t.Context(), func(context.Context, snapshots.Info) error { return nil }); err != nil {
		t.Errorf("the snapshotter: %v", err)
	}
}
