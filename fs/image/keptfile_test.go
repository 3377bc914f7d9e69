package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// with opens the image, with a Cache of its own and options that change makes.
func (o *opened) with(change func(*image.Options)) (*image.Image, *cache.Cache) {
	o.t.Helper()
	img, err := remote.Open(o.t.Context(), o.src, "")
	if err != nil {
		o.t.Fatal(err)
	}
	disk, err := cache.Open(o.dir, &cache.Options{Budget: o.budget})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { disk.Close() })
	opts := &image.Options{Cache: disk}
	if change != nil {
		change(opts)
	}
	tree, err := image.New(o.t.Context(), img, opts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { tree.Close() })
	return tree, disk
}

// forgetful has a tree keep next to nothing of what it decodes.
func forgetful(opts *image.Options) { opts.SpanMemory = 1 }

// otherImage is another image with the same cache directory.
func (o *opened) otherImage(layers ...sourcetest.Layer) *opened {
	other := newOpened(o.t, layers...)
	other.dir = o.dir
	return other
}

func lookup(t *testing.T, tree *image.Image, name string) fs.Node {
	t.Helper()
	n, err := tree.Tree().Lookup(name, false)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pass reads a file from its beginning to its end, piece by piece.
func pass(t *testing.T, n fs.Node, want string) {
	t.Helper()
	p := make([]byte, 100_000)
	for off := 0; off < len(want); off += len(p) {
		k, err := n.ReadAt(t.Context(), p, int64(off))
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if end := min(off+len(p), len(want)); string(p[:k]) != want[off:end] {
			t.Fatalf("the %d bytes at %d are wrong", end-off, off)
		}
	}
	if k, err := n.ReadAt(t.Context(), p, int64(len(want))-10); k != 10 || err != io.EOF || string(p[:k]) != want[len(want)-10:] {
		t.Fatalf("at the end: %d bytes, %v", k, err)
	}
}

// backingHas compares a file that was handed out with what it should be.
func backingHas(t *testing.T, b *image.KeptFile, want string) {
	t.Helper()
	got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", b.Fd()))
	if err != nil || string(got) != want {
		t.Errorf("the file has %d bytes, equal %v, %v; want %d", len(got), string(got) == want, err, len(want))
	}
}

// TestContentsSecondPass: one pass over a file does not write it, a second one
// does, and the third is read from there.
func TestContentsSecondPass(t *testing.T) {
	testenv.Slow(t)
	big := random(1, 3<<20)
	before := random(2, 700_000) // so that the file begins in the midst of a span
	o := newOpened(t, gzipLayer(t, "before", before, "big", big, "behind", random(3, 500_000)))
	for _, memory := range []int64{1, 2 << 20} {
		os.RemoveAll(filepath.Join(o.dir, "contents"))
		tree, _ := o.with(func(opts *image.Options) { opts.SpanMemory = memory })
		n := lookup(t, tree, "big")
		for i, want := range []image.KeptStats{
			{},
			{Open: 1, Kept: 1, KeptBytes: int64(len(big))},
			{Open: 1, Kept: 1, KeptBytes: int64(len(big)), ReadBytes: int64(len(big)) + 10},
		} {
			read := tree.Stats().Contents.ReadBytes
			pass(t, n, big)
			image.KeptFiles(tree).Wait()
			got := tree.Stats().Contents
			if i < 2 { // it may have been made in the midst of the second pass
				got.ReadBytes = 0
			} else {
				got.ReadBytes -= read
			}
			if got != want {
				decoded, cost := image.KeptFiles(tree).Cost(n)
				t.Errorf("memory %d: pass %d: %+v, want %+v; %d bytes decoded, the file takes %d", memory, i+1, got, want, decoded, cost)
			}
		}
		if b, ok := tree.KeptFile(n, false); !ok {
			t.Errorf("no file to hand out")
		} else {
			backingHas(t, b, big)
			b.Close()
		}
	}
}

// TestContentsInMemory: reading what is in memory is free, and no reason to
// write anything.
func TestContentsInMemory(t *testing.T) {
	big := random(1, 1<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	tree, _ := o.with(nil)
	for range 5 {
		pass(t, lookup(t, tree, "big"), big)
	}
	image.KeptFiles(tree).Wait()
	if s := tree.Stats().Contents; s != (image.KeptStats{}) {
		t.Errorf("%+v", s)
	}
}

// TestContentsRandomReads reads a file here and there until it is kept, and on.
func TestContentsRandomReads(t *testing.T) {
	testenv.Slow(t)
	big := random(1, 4<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	tree, _ := o.with(forgetful)
	n := lookup(t, tree, "big")
	rng := rand.New(rand.NewPCG(1, 1))
	p := make([]byte, 4096)
	read := func() {
		off := rng.IntN(len(big) - len(p))
		if _, err := n.ReadAt(t.Context(), p, int64(off)); err != nil || string(p) != big[off:off+len(p)] {
			t.Fatalf("reading at %d: %v, or wrong bytes", off, err)
		}
	}
	reads := 0
	for ; tree.Stats().Contents.Kept == 0; reads++ {
		if reads == 1000 {
			t.Fatal("it is not kept")
		}
		read()
		image.KeptFiles(tree).Wait()
	}
	if reads < 4 {
		t.Errorf("it is kept after %d reads", reads)
	}
	read()
	if s := tree.Stats().Contents; s.ReadBytes != int64(len(p)) {
		t.Errorf("%+v after a read", s)
	}
}

// TestContentsWrong: a content on disk that is wrong is not served, neither to
// readers nor for passing through.
func TestContentsWrong(t *testing.T) {
	testenv.Slow(t)
	other := random(1, 1<<20) // takes the other's place in memory
	for _, size := range []int{keptfile.MinSize, keptfile.CheckAtOpen + 1} {
		right := random(uint64(size), size)
		layer := gzipLayer(t, "a", right, "b", other)
		wrong := []byte(right)
		wrong[size/2] ^= 1
		for _, fetched := range []bool{false, true} {
			o := newOpened(t, layer)
			o.opens()
			if fetched {
				o.dropBlobs()
			}
			path := filepath.Join(o.dir, "contents", "sha256", digest.FromString(right).Encoded())
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			plant := func() {
				if err := os.WriteFile(path, wrong, 0o400); err != nil {
					t.Fatal(err)
				}
			}
			plant()
			tree, _ := o.with(forgetful)
			n := lookup(t, tree, "a")
			if fetched {
				pass(t, n, right)
			}
			if _, ok := tree.KeptFile(n, false); ok {
				t.Errorf("%d bytes: a wrong content was handed out", size)
			}
			image.KeptFiles(tree).Wait()
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%d bytes: it was not looked at: %v", size, err)
			}
			plant()
			for range 4 {
				pass(t, n, right)
				pass(t, lookup(t, tree, "b"), other)
				image.KeptFiles(tree).Wait()
			}
			if b, ok := tree.KeptFile(n, false); !ok {
				t.Errorf("%d bytes: the right one was not made", size)
			} else {
				backingHas(t, b, right)
				b.Close()
			}
		}
	}
}

// TestContentsOfAnotherImage: what another image has kept is neither fetched nor
// decoded.
func TestContentsOfAnotherImage(t *testing.T) {
	big := random(1, 2<<20)
	o := newOpened(t, gzipLayer(t, "x", random(2, 5000), "big", big))
	tree, _ := o.with(forgetful)
	for range 2 {
		pass(t, lookup(t, tree, "big"), big)
	}
	image.KeptFiles(tree).Wait()
	if s := tree.Stats().Contents; s.Kept != 1 {
		t.Fatalf("%+v: it was not kept", s)
	}

	o = o.otherImage(gzipLayer(t, "other/name", big, "y", random(3, 300_000)))
	o.opens()
	o.dropBlobs()
	tree, _ = o.with(nil)
	n := lookup(t, tree, "other/name")
	o.src.read.Store(0)
	// Several come at once, as what the kernel reads ahead does.
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			p := make([]byte, 50_000)
			if _, err := n.ReadAt(t.Context(), p, int64(i*50_000)); err != nil || string(p) != big[i*50_000:(i+1)*50_000] {
				t.Errorf("reading: %v, or wrong bytes", err)
			}
		})
	}
	wg.Wait()
	pass(t, n, big)
	if read := o.src.read.Load(); read != 0 {
		t.Errorf("%d bytes were fetched", read)
	}
	if s := tree.Stats().Contents; s.Open != 1 || s.Kept != 0 || s.ReadBytes != int64(200_000+len(big)+10) {
		t.Errorf("%+v", s)
	}
}

// TestContentsOfAnEarlierMount: what is decoded without the network is looked
// for when a part of it has been read.
func TestContentsOfAnEarlierMount(t *testing.T) {
	testenv.Slow(t)
	big := random(1, 3<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	_, disk := o.with(nil)
	store(t, disk, big)
	tree, _ := o.with(nil)
	n := lookup(t, tree, "big")
	if _, err := n.ReadAt(t.Context(), make([]byte, 1000), 0); err != nil {
		t.Fatal(err)
	}
	image.KeptFiles(tree).Wait()
	if s := tree.Stats().Contents; s != (image.KeptStats{}) {
		t.Errorf("a small read has it checked: %+v", s)
	}
	pass(t, n, big)
	image.KeptFiles(tree).Wait()
	pass(t, n, big)
	if s := tree.Stats().Contents; s.Open != 1 || s.Kept != 0 || s.ReadBytes < int64(len(big)) {
		t.Errorf("%+v", s)
	}
}

// store keeps a content.
func store(t *testing.T, disk *cache.Cache, content string) {
	t.Helper()
	x, err := disk.Files.Store(t.Context(), digest.FromString(content), int64(len(content)), bytes.NewReader([]byte(content)))
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
}

// A countedDir counts what is made. It waits in Store, if there is a
// channel for it.
type countedDir struct {
	keptfile.Dir
	stored, looked atomic.Int64
	begun          chan struct{}
}

func (d *countedDir) Has(sum digest.Digest, size int64) bool {
	d.looked.Add(1)
	return d.Dir.Has(sum, size)
}

func (d *countedDir) Store(ctx context.Context, sum digest.Digest, size int64, r io.Reader) (keptfile.File, error) {
	d.stored.Add(1)
	if d.begun != nil {
		d.begun <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return d.Dir.Store(ctx, sum, size, r)
}

func (d *countedDir) on(tree *image.Image) {
	image.KeptFiles(tree).SetDir(func(dir keptfile.Dir) keptfile.Dir {
		d.Dir = dir
		return d
	})
}

// TestContentsWithoutChunks: nothing is fetched to make a content.
func TestContentsWithoutChunks(t *testing.T) {
	testenv.Slow(t)
	big := random(1, 3<<20)
	layer := gzipLayer(t, "big", big)
	for _, budget := range []int64{0, 1} { // without room no chunk stays
		o := newOpened(t, layer)
		o.budget = budget
		tree, _ := o.with(forgetful)
		dir := &countedDir{}
		dir.on(tree)
		n := lookup(t, tree, "big")
		for range 6 {
			pass(t, n, big)
			image.KeptFiles(tree).Wait()
		}
		if stored := dir.stored.Load(); stored != 1-budget {
			t.Errorf("budget %d: %d contents made", budget, stored)
		}
		// It is not looked for with each read.
		if looked := dir.looked.Load(); looked > 20 {
			t.Errorf("budget %d: looked for %d times", budget, looked)
		}
	}
}

// TestContentsPartlyThere: the last chunks of a file are missing.
func TestContentsPartlyThere(t *testing.T) {
	testenv.Slow(t)
	big := random(1, 3<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	o.opens()
	o.dropBlobs()
	tree, _ := o.with(forgetful)
	n := lookup(t, tree, "big")
	p := make([]byte, 4096)
	for range 6 {
		for _, off := range []int64{900_000, 1_800_000} { // no order: nothing is fetched ahead
			if _, err := n.ReadAt(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
		}
		image.KeptFiles(tree).Wait()
	}
	decoded, cost := image.KeptFiles(tree).Cost(n)
	if decoded < cost*3/2 {
		t.Fatalf("%d bytes decoded, the file takes %d: there is no reason to make it", decoded, cost)
	}
	fetched := o.src.read.Load()
	if s := tree.Stats().Contents; s.Kept != 0 || fetched == 0 {
		t.Errorf("%+v, %d bytes fetched", s, fetched)
	}
	pass(t, n, big)
	pass(t, n, big)
	image.KeptFiles(tree).Wait()
	if s := tree.Stats().Contents; s.Kept != 1 {
		t.Errorf("%+v, with all of it there", s)
	}
}

// TestContentsUncounted: what is read to make a content counts for no reader.
func TestContentsUncounted(t *testing.T) {
	big := random(1, 2<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	tree, _ := o.with(forgetful)
	n := lookup(t, tree, "big")
	p := make([]byte, 1)
	if _, err := n.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	before := tree.Stats()
	for range 2 {
		tree.KeptFile(n, true)
	}
	image.KeptFiles(tree).Wait()
	after := tree.Stats()
	if after.Contents.Kept != 1 {
		t.Fatalf("%+v: not made when it is executed again", after.Contents)
	}
	if after.Reads != before.Reads || after.Asked != before.Asked || after.Layers[0].Blob != before.Layers[0].Blob {
		t.Errorf("%+v before, %+v after", before, after)
	}
}

// TestContentsClose ends what goes on.
func TestContentsClose(t *testing.T) {
	big := random(1, 1<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	tree, _ := o.with(forgetful)
	dir := &countedDir{begun: make(chan struct{})}
	dir.on(tree)
	n := lookup(t, tree, "big")
	pass(t, n, big)
	for range 2 {
		tree.KeptFile(n, true)
	}
	<-dir.begun
	tree.Close()
	image.KeptFiles(tree).Wait()
	if _, ok := tree.KeptFile(n, true); ok || dir.stored.Load() != 1 {
		t.Errorf("after Close: %v, %d begun", ok, dir.stored.Load())
	}
}
