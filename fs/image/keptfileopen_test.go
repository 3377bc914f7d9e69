package image_test

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// The dialect of package layertest.
type member = layertest.Member

var (
	dir     = layertest.Dir
	symlink = layertest.Symlink
	file    = layertest.File
	sparse  = layertest.Sparse
)

// plainLayer is a layer that is not compressed.
func plainLayer(members ...member) sourcetest.Layer {
	b := layertest.TarOf(members)
	return sourcetest.Layer{Content: b, MediaType: ocispec.MediaTypeImageLayer, DiffID: digest.FromBytes(b)}
}

func TestBacking(t *testing.T) {
	small, inline, big := random(1, keptfile.MinSize), random(2, keptfile.CheckAtOpen), random(3, keptfile.CheckAtOpen+1)
	layer := plainLayer(
		dir("dir/"), symlink("link", "inline"), file("empty", ""), file("tiny", random(4, keptfile.MinSize-1)),
		sparse("sparse", 300_000, random(5, 200_000), []layerindex.Extent{{Off: 100_000, Size: 200_000}}),
		file("small", small), file("inline", inline), file("big", big), file("missing", random(6, 200_000)),
	)
	o := newOpened(t, layer)
	_, cache := o.with(nil)
	for _, content := range []string{"", random(4, keptfile.MinSize-1), string(make([]byte, 100_000)) + random(5, 200_000), small, inline, big} {
		store(t, cache, content)
	}
	// Another Cache has checked none of them.
	tree, _ := o.with(nil)
	tests := []struct {
		name  string
		times int // that it is asked for until it is there, 0 if it never is
		want  string
	}{
		{"dir", 0, ""},
		{"link", 0, ""},
		{"empty", 0, ""},
		{"tiny", 0, ""},
		{"sparse", 0, ""},
		{"missing", 0, ""},
		{"small", 1, small},
		{"inline", 1, inline},
		{"big", 2, big},
	}
	for _, tt := range tests {
		times := 0
		for i := 1; i <= 3 && times == 0; i++ {
			if b, ok := tree.KeptFile(lookup(t, tree, tt.name), false); ok {
				times = i
				backingHas(t, b, tt.want)
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
			image.KeptFiles(tree).Wait()
		}
		if times != tt.times {
			t.Errorf("%s: there when asked for the %d. time, want the %d.", tt.name, times, tt.times)
		}
	}
	if s := tree.Stats().Contents; s.Kept != 0 || s.Open != 3 {
		t.Errorf("%+v", s)
	}
}

// TestBackingExec: a program is kept when it is started for the second time, if
// it was read.
func TestBackingExec(t *testing.T) {
	testenv.Slow(t)
	prog := random(1, 500_000)
	for _, tt := range []struct {
		name  string
		read  bool
		execs []bool
		want  int64
	}{
		{"twice", true, []bool{true, true}, 1},
		{"once", true, []bool{true}, 0},
		{"not to execute it", true, []bool{false, false, true, false}, 0},
		{"not read", false, []bool{true, true, true}, 0},
	} {
		o := newOpened(t, gzipLayer(t, "prog", prog))
		tree, _ := o.with(nil)
		n := lookup(t, tree, "prog")
		if tt.read {
			if _, err := n.ReadAt(t.Context(), make([]byte, 100), 300_000); err != nil {
				t.Fatal(err)
			}
		}
		for _, exec := range tt.execs {
			if _, ok := tree.KeptFile(n, exec); ok {
				t.Errorf("%s: it was there at once", tt.name)
			}
			image.KeptFiles(tree).Wait()
		}
		if s := tree.Stats().Contents; s.Kept != tt.want {
			t.Errorf("%s: %+v, want %d kept", tt.name, s, tt.want)
		}
		if b, ok := tree.KeptFile(n, true); ok != (tt.want > 0) {
			t.Errorf("%s: Backing: %v", tt.name, ok)
		} else if ok {
			backingHas(t, b, prog)
			tree.Close()
			backingHas(t, b, prog) // until it is given back
			b.Close()
		}
	}
}

func TestBackingProbe(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", random(1, 200_000)))
	tree, _ := o.with(nil)
	b, err := tree.KeptFileProbe()
	if err != nil {
		t.Fatal(err)
	}
	backingHas(t, b, "")
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	off, _ := o.with(func(opts *image.Options) { opts.NoKeptFiles = true })
	if _, err := off.KeptFileProbe(); err == nil {
		t.Error("a probe")
	}
	if _, ok := off.KeptFile(lookup(t, off, "a"), false); ok {
		t.Error("a content")
	}
}

// TestNoKeptFiles makes none, and uses none.
func TestNoKeptFiles(t *testing.T) {
	big := random(1, 1<<20)
	o := newOpened(t, gzipLayer(t, "big", big))
	tree, cache := o.with(func(opts *image.Options) { opts.NoKeptFiles, opts.SpanMemory = true, 1 })
	for range 4 {
		pass(t, lookup(t, tree, "big"), big)
	}
	if cache.Files.Any() {
		t.Error("there are contents")
	}
	store(t, cache, big)
	for range 4 {
		pass(t, lookup(t, tree, "big"), big)
	}
	if s := tree.Stats().Contents; s != (image.KeptStats{}) {
		t.Errorf("%+v", s)
	}
}

// manyContents is an image of files whose contents are kept, and a tree of it.
func manyContents(t *testing.T, n int) (tree *image.Image, o *opened, contents []string) {
	t.Helper()
	var members []member
	for i := range n {
		contents = append(contents, random(uint64(i), keptfile.MinSize+i))
		members = append(members, file(fmt.Sprint(i), contents[i]))
	}
	o = newOpened(t, plainLayer(members...))
	tree, cache := o.with(nil)
	for _, content := range contents {
		store(t, cache, content)
	}
	return tree, o, contents
}

// hands takes a file's content, which must be there.
func hands(t *testing.T, tree *image.Image, i int) *image.KeptFile {
	t.Helper()
	b, ok := tree.KeptFile(lookup(t, tree, fmt.Sprint(i)), false)
	if !ok {
		t.Fatalf("%d: it is not there", i)
	}
	return b
}

// TestContentsBounded: no more are open than may be, but for those that are
// held; which are closed is of no effect on what is read.
func TestContentsBounded(t *testing.T) {
	testenv.Slow(t)
	const n = keptfile.MaxOpen + 10
	tree, _, contents := manyContents(t, n)
	var held []*image.KeptFile
	open := func(want int) {
		t.Helper()
		if s := tree.Stats().Contents; s.Open != want {
			t.Fatalf("%d are open, want %d", s.Open, want)
		}
	}
	for i := range n {
		b := hands(t, tree, i)
		if i < 3 {
			held = append(held, b)
		} else {
			b.Close()
		}
	}
	open(keptfile.MaxOpen)
	for i, b := range held {
		backingHas(t, b, contents[i])
	}
	for i := range contents {
		read := tree.Stats().Contents.ReadBytes
		pass(t, lookup(t, tree, fmt.Sprint(i)), contents[i])
		if s := tree.Stats().Contents; s.ReadBytes != read+int64(len(contents[i]))+10 {
			t.Fatalf("%d: %d bytes read from contents", i, s.ReadBytes-read)
		}
	}
	open(keptfile.MaxOpen)
	for i := 3; i < n; i++ {
		held = append(held, hands(t, tree, i))
	}
	open(n)
	for i := n - 1; i >= 0; i-- {
		backingHas(t, held[i], contents[i])
		held[i].Close()
	}
	open(keptfile.MaxOpen)
}

// TestContentsIdle: what is not read is closed, unless it is held, and opened
// again when it is.
func TestContentsIdle(t *testing.T) {
	tree, _, contents := manyContents(t, 3)
	held := hands(t, tree, 0)
	for i := 1; i < 3; i++ {
		hands(t, tree, i).Close()
	}
	for i := range 3 * keptfile.IdleTicks {
		image.KeptFiles(tree).Tick()
		pass(t, lookup(t, tree, "1"), contents[1])
		want := 3
		if i >= keptfile.IdleTicks {
			want = 2
		}
		if s := tree.Stats().Contents; s.Open != want {
			t.Errorf("%d are open after %d ticks, want %d", s.Open, i+1, want)
		}
	}
	backingHas(t, held, contents[0])
	held.Close()
	for range keptfile.IdleTicks + 2 {
		image.KeptFiles(tree).Tick()
	}
	if s := tree.Stats().Contents; s.Open != 0 {
		t.Errorf("%d are open", s.Open)
	}
	read := tree.Stats().Contents.ReadBytes
	pass(t, lookup(t, tree, "2"), contents[2])
	if s := tree.Stats().Contents; s.Open != 1 || s.ReadBytes != read+int64(len(contents[2]))+10 {
		t.Errorf("%+v after a read", s)
	}
}

// TestContentsDamagedWhileOpen: a content that has become shorter is given up,
// and its file is decoded.
func TestContentsDamagedWhileOpen(t *testing.T) {
	tree, o, contents := manyContents(t, 1)
	held := hands(t, tree, 0)
	defer held.Close()
	path := filepath.Join(o.dir, "contents", "sha256", digest.FromString(contents[0]).Encoded())
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	pass(t, lookup(t, tree, "0"), contents[0])
	backingHas(t, held, contents[0][:1000]) // it stays the holder's
	if s := tree.Stats(); s.Contents.Open != 0 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
	if _, ok := tree.KeptFile(lookup(t, tree, "0"), false); ok {
		t.Error("it was handed out again")
	}
}

// TestContentsCrowd has readers, holders, makers and closers at once.
func TestContentsCrowd(t *testing.T) {
	files := []string{"a", random(1, 600_000), "b", random(2, 1_500_000), "c", random(3, 300_000)}
	o := newOpened(t, gzipLayer(t, files...))
	tree, _ := o.with(forgetful)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			p := make([]byte, 30_000)
			for range 60 {
				k := 2 * rng.IntN(3)
				name, content := files[k], files[k+1]
				n, err := tree.Tree().Lookup(name, false)
				if err != nil {
					t.Error(err)
					return
				}
				off := rng.IntN(len(content) - len(p))
				if _, err := n.ReadAt(t.Context(), p, int64(off)); err != nil || string(p) != content[off:off+len(p)] {
					t.Errorf("%s at %d: %v, or wrong bytes", name, off, err)
				}
				switch rng.IntN(4) {
				case 0:
					image.KeptFiles(tree).Tick()
				case 1:
					if b, ok := tree.KeptFile(n, true); ok {
						backingHas(t, b, content)
						b.Close()
					}
				}
			}
		})
	}
	wg.Wait()
	image.KeptFiles(tree).Wait()
	if s := tree.Stats().Contents; s.Kept == 0 || s.Kept > 3 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// TestReadAtAllocations: what is in memory, or in a content, costs no memory.
func TestReadAtAllocations(t *testing.T) {
	big := random(1, 300_000)
	o := newOpened(t, gzipLayer(t, "small", random(2, 50_000), "big", big))
	tree, cache := o.with(nil)
	p := make([]byte, 4096)
	off := int64(0)
	read := func(name string) float64 {
		n := lookup(t, tree, name)
		return testing.AllocsPerRun(100, func() {
			off = (off + 7919) % 40_000
			if _, err := n.ReadAt(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, name := range []string{"small", "big"} {
		if got := read(name); got != 0 {
			t.Errorf("%s: %v allocations for a read from memory", name, got)
		}
	}
	store(t, cache, big)
	hands := func() { // checks it
		if b, ok := tree.KeptFile(lookup(t, tree, "big"), false); !ok {
			t.Fatal("it is not there")
		} else {
			b.Close()
		}
	}
	hands()
	if got := read("big"); got != 0 || tree.Stats().Contents.ReadBytes == 0 {
		t.Errorf("%v allocations for a read from a content", got)
	}
}

// TestContentsSourceFails: a file whose content is there can be read, even if
// nothing else is.
func TestContentsSourceFails(t *testing.T) {
	a, b := random(1, 300_000), random(2, 300_000)
	o := newOpened(t, gzipLayer(t, "a", a, "b", b))
	o.opens()
	o.dropBlobs()
	src := o.faulty()
	tree, cache := o.with(nil)
	src.err = errors.New("out of order")
	n := lookup(t, tree, "a")
	if _, err := n.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, src.err) {
		t.Fatalf("reading: %v", err)
	}
	store(t, cache, a)
	pass(t, n, a)
	if _, err := iofs.ReadFile(tree.FS(t.Context()), "b"); !errors.Is(err, src.err) {
		t.Errorf("b: %v", err)
	}
}
