package snapshotter_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// fakeTrees are trees that are plain directories: what is mounted on a directory is a file
// "live" in it, or "dead", which another process sees as well.
type fakeTrees struct {
	t testing.TB

	mu       sync.Mutex
	images   map[snapshotter.Image]*fakeImage
	mounting map[string]bool // the directories that something is being done with
	mounts   []string        // "REF LAYERS", in the order of mounting
	indexes  int
}

// A fakeImage is what the trees know of an image.
type fakeImage struct {
	diffIDs           []digest.Digest
	noDiffIDs         error
	noIndex           error
	noMount           error
	indexing, looking chan struct{} // not nil: closed when it may end
	mounting          chan struct{} // likewise
}

func newFakeTrees(t testing.TB) *fakeTrees {
	return &fakeTrees{t: t, images: map[snapshotter.Image]*fakeImage{}, mounting: map[string]bool{}}
}

// add adds an image whose layers have these texts.
func (f *fakeTrees) add(ref string, layers ...string) (snapshotter.Image, *fakeImage) {
	made := &fakeImage{}
	for _, l := range layers {
		made.diffIDs = append(made.diffIDs, digest.FromString(l))
	}
	img := snapshotter.Image{Ref: ref, Digest: digest.FromString(ref + strings.Join(layers, "\n"))}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[img] = made
	return img, made
}

func (f *fakeTrees) image(img snapshotter.Image) (fakeImage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.images[img]
	if known == nil {
		return fakeImage{}, fmt.Errorf("no registry has %s", img.Ref)
	}
	return *known, nil
}

// set changes an image.
func (f *fakeTrees) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeTrees) DiffIDs(ctx context.Context, img snapshotter.Image) ([]digest.Digest, error) {
	known, err := f.image(img)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, known.looking); err != nil {
		return nil, err
	}
	return known.diffIDs, known.noDiffIDs
}

func (f *fakeTrees) Index(ctx context.Context, img snapshotter.Image) error {
	known, err := f.image(img)
	if err != nil {
		return err
	}
	f.set(func() { f.indexes++ })
	if err := wait(ctx, known.indexing); err != nil {
		return err
	}
	return known.noIndex
}

// wait waits until a channel is closed that is not nil.
func wait(ctx context.Context, c <-chan struct{}) error {
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// alone fails the test if something else is being done with a directory.
func (f *fakeTrees) alone(dir string) (done func()) {
	f.set(func() {
		if f.mounting[dir] {
			f.t.Errorf("two calls at once have %s", dir)
		}
		f.mounting[dir] = true
	})
	return func() { f.set(func() { delete(f.mounting, dir) }) }
}

func (f *fakeTrees) Mount(ctx context.Context, img snapshotter.Image, n int, dir string) error {
	defer f.alone(dir)()
	known, err := f.image(img)
	if err == nil {
		err = known.noMount
	}
	if err == nil {
		err = wait(ctx, known.mounting)
	}
	if err != nil {
		return err
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		f.t.Errorf("mounting on %s, which has %v, %v", dir, left, err)
	}
	temp := filepath.Join(filepath.Dir(dir), ".new-tree") // this process may be killed
	if err := os.WriteFile(temp, []byte(known.diffIDs[n-1]), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, "live")); err != nil {
		return err
	}
	f.set(func() { f.mounts = append(f.mounts, fmt.Sprint(img.Ref, " ", n)) })
	return nil
}

func (f *fakeTrees) Unmount(_ context.Context, dir string) error {
	defer f.alone(dir)()
	return errors.Join(removeIfThere(filepath.Join(dir, "live")), removeIfThere(filepath.Join(dir, "dead")))
}

func removeIfThere(name string) error {
	if err := os.Remove(name); !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}

func (f *fakeTrees) State(_ context.Context, dir string) (snapshotter.State, error) {
	defer f.alone(dir)()
	if _, err := os.Stat(filepath.Join(dir, "live")); err == nil {
		return snapshotter.Live, nil
	}
	if _, err := os.Stat(filepath.Join(dir, "dead")); err == nil {
		return snapshotter.Dead, nil
	}
	return snapshotter.Absent, nil
}

// mountedNow returns what has been mounted so far.
func (f *fakeTrees) mountedNow() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mounts)
}

// open opens a snapshotter in a new directory.
func open(t *testing.T, trees snapshotter.Trees, opts *snapshotter.Options) (*snapshotter.Snapshotter, string) {
	t.Helper()
	dir := t.TempDir()
	return openIn(t, dir, trees, opts), dir
}

func openIn(t *testing.T, dir string, trees snapshotter.Trees, opts *snapshotter.Options) *snapshotter.Snapshotter {
	t.Helper()
	o := snapshotter.Options{}
	if opts != nil {
		o = *opts
	}
	o.Warnf = t.Logf
	s, err := snapshotter.New(t.Context(), dir, trees, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// labels are those that a client prepares a snapshot with.
func labels(img snapshotter.Image, chain digest.Digest) map[string]string {
	return map[string]string{
		"containerd.io/snapshot.ref":                 chain.String(),
		"containerd.io/snapshot/cri.image-ref":       img.Ref,
		"containerd.io/snapshot/cri.manifest-digest": img.Digest.String(),
	}
}

// A namespace is what containerd keeps of one of its namespaces: which name of the
// snapshotter a name has.
type namespace struct {
	t    *testing.T
	s    *snapshotter.Snapshotter
	name string
	n    int
	keys map[string]string
}

func newNamespace(t *testing.T, s *snapshotter.Snapshotter, name string) *namespace {
	return &namespace{t: t, s: s, name: name, keys: map[string]string{"": ""}}
}

// key returns a new name as containerd gives it.
func (ns *namespace) key(name string) string {
	ns.n++
	return fmt.Sprintf("%s/%d/%s", ns.name, ns.n, name)
}

// prepare does what containerd does with a layer, and reports whether that is lazy. A layer
// that is not is unpacked.
func (ns *namespace) prepare(parent string, chain digest.Digest, labels map[string]string) (lazy bool) {
	ns.t.Helper()
	key, below := ns.key("extract "+chain.String()), ns.keys[parent]
	mounts, err := ns.s.Prepare(ns.t.Context(), key, below, snapshots.WithLabels(labels))
	if err == nil {
		if len(mounts) == 0 || slices.Contains(mounts[len(mounts)-1].Options, "ro") {
			ns.t.Errorf("%s is unpacked into %v", chain, mounts)
		}
		name := ns.key(chain.String())
		if err := ns.s.Commit(ns.t.Context(), name, key, snapshots.WithLabels(labels)); err != nil {
			ns.t.Fatal(err)
		}
		ns.keys[chain.String()] = name
		return false
	}
	if !errdefs.IsAlreadyExists(err) {
		ns.t.Fatalf("Prepare: %v", err)
	}
	found := ""
	filter := fmt.Sprintf(`labels.%q==%s,parent==%q`, snapshots.LabelSnapshotRef, chain, below)
	if err := ns.s.Walk(ns.t.Context(), func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted || info.Parent != below || found != "" {
			ns.t.Errorf("the filter finds %+v besides %q", info, found)
		}
		found = info.Name
		return nil
	}, filter); err != nil || found == "" {
		ns.t.Fatalf("containerd finds no snapshot of %s: %v", chain, err)
	}
	ns.keys[chain.String()] = found
	return true
}

// pull does what containerd does with an image, and returns how many layers are lazy.
func (ns *namespace) pull(img snapshotter.Image, diffIDs []digest.Digest) (lazy int) {
	ns.t.Helper()
	parent := ""
	for _, chain := range chains(diffIDs) {
		if ns.prepare(parent, chain, labels(img, chain)) {
			lazy++
		}
		if _, err := ns.s.Stat(ns.t.Context(), ns.keys[chain.String()]); err != nil {
			ns.t.Fatalf("Stat: %v", err)
		}
		parent = chain.String()
	}
	return lazy
}

// remove removes snapshots, those that have been made last before others.
func (ns *namespace) remove(keys ...string) {
	ns.t.Helper()
	for _, key := range keys {
		if err := ns.s.Remove(ns.t.Context(), ns.keys[key]); err != nil {
			ns.t.Errorf("Remove %s: %v", key, err)
		}
	}
}

func chains(diffIDs []digest.Digest) []digest.Digest { return identity.ChainIDs(slices.Clone(diffIDs)) }

// top returns the chain of all layers.
func top(diffIDs []digest.Digest) string { return chains(diffIDs)[len(diffIDs)-1].String() }

// lowerOf returns the lower directories of an overlay.
func lowerOf(t *testing.T, mounts []mount.Mount) []string {
	t.Helper()
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		t.Fatalf("%v is no overlay", mounts)
	}
	for _, o := range mounts[0].Options {
		if text, ok := strings.CutPrefix(o, "lowerdir="); ok {
			return strings.Split(text, ":")
		}
	}
	t.Fatalf("%v has no lower directory", mounts)
	return nil
}

// tree returns what is on a directory of a fake tree: the topmost layer.
func tree(t *testing.T, dir string) digest.Digest {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "live"))
	if err != nil {
		t.Fatalf("no tree is on %s: %v", dir, err)
	}
	return digest.Digest(text)
}

// files returns what is in the parts of a root that have one entry each for what is kept.
func files(t *testing.T, dir string) (snapshotDirs, chainDirs []string) {
	t.Helper()
	list := func(name string) (names []string) {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if left := list("removed"); len(left) > 0 {
		t.Errorf("removed has %v", left)
	}
	return list("snapshots"), list("chains")
}

// eventually waits for something that happens in the background.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}
