package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// An indexFile is a layer index as it lies in a cache.
type indexFile struct {
	t    *testing.T
	path string
	good []byte
}

func (o *opened) indexFile(t *testing.T, l sourcetest.Layer) *indexFile {
	t.Helper()
	f := &indexFile{t: t, path: filepath.Join(o.dir, "indexes", "sha256", digest.FromBytes(l.Content).Encoded())}
	var err error
	if f.good, err = os.ReadFile(f.path); err != nil {
		t.Fatal(err)
	}
	return f
}

// section returns where a section lies: docs/index-format.md.
func (f *indexFile) section(kind uint32) (row, off, size int) {
	le := binary.LittleEndian
	for i := range int(le.Uint32(f.good[120:])) {
		row := 128 + 64*i
		if le.Uint32(f.good[row:]) == kind {
			return row, int(le.Uint64(f.good[row+8:])), int(le.Uint64(f.good[row+16:]))
		}
	}
	f.t.Fatalf("no section %d", kind)
	return 0, 0, 0
}

// overwrite changes the file in place.
func (f *indexFile) overwrite(b []byte) {
	f.t.Helper()
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_TRUNC, 0)
	if err == nil {
		_, err = file.Write(b)
		file.Close()
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// damage flips a bit in a section, in place.
func (f *indexFile) damage(kind uint32) {
	f.t.Helper()
	_, off, size := f.section(kind)
	bad := slices.Clone(f.good)
	bad[off+size/2] ^= 1
	f.overwrite(bad)
}

// seal sets the checksums right of an index that says something else: what
// whoever forges one does.
func (f *indexFile) seal(b []byte) []byte {
	le := binary.LittleEndian
	for i := range int(le.Uint32(b[120:])) {
		row := 128 + 64*i
		off, size := le.Uint64(b[row+8:]), le.Uint64(b[row+16:])
		sum := sha256.Sum256(b[off : off+size])
		copy(b[row+32:], sum[:])
	}
	n := le.Uint32(b[12:])
	sum := sha256.Sum256(b[:n-32])
	copy(b[n-32:], sum[:])
	return b
}

// text returns n bytes that gzip takes apart into several spans.
func text(n int) string {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = "etaoin shrdlu\n"[r.IntN(14)]
	}
	return string(b)
}

const (
	sectionChunks  = 2
	sectionSpans   = 3
	sectionWindows = 4
	sectionDigests = 5
)

// An index that changes in place under a tree, before it is first used, costs no
// reader anything: it is made again of the blob, which is in the cache.
func TestIndexChangesUnderTree(t *testing.T) {
	testenv.Slow(t)
	big := text(5 << 19)
	layer := gzipLayer(t, "small", "s", "big", big)
	damages := map[string]func(f *indexFile){
		"spans":   func(f *indexFile) { f.damage(sectionSpans) },
		"windows": func(f *indexFile) { f.damage(sectionWindows) },
		"cut":     func(f *indexFile) { f.overwrite(f.good[:300]) },
		"empty":   func(f *indexFile) { f.overwrite(nil) },
		"all":     func(f *indexFile) { f.overwrite(make([]byte, len(f.good))) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			o := newOpened(t, layer)
			for range 2 { // built, and loaded
				tree := mustOpen(t, o)
				f := o.indexFile(t, layer)
				damage(f)
				before := o.src.read.Load()
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						checkAt(t, tree, "big", big, 2<<20) // where decoding needs a window
						o.has(tree, "big", big)
					})
				}
				wg.Wait()
				o.has(tree, "small", "s")
				if got := o.src.read.Load() - before; got != 0 {
					t.Errorf("fetched %d bytes", got)
				}
				if now, err := os.ReadFile(f.path); err != nil || !bytes.Equal(now, f.good) {
					t.Errorf("the file is not as it was: %v", err)
				}
				tree.Close()
			}
		})
	}
}

// checkAt checks a few bytes of a file.
func checkAt(t *testing.T, tree *image.Image, name, content string, off int) {
	t.Helper()
	n, err := tree.Tree().Lookup(name, false)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	if _, err := n.ReadAt(t.Context(), p, int64(off)); err != nil || string(p) != content[off:off+len(p)] {
		t.Errorf("%s at %d: %q, %v", name, off, p, err)
	}
}

func mustOpen(t *testing.T, o *opened) *image.Image {
	t.Helper()
	tree, err := o.open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// Where it cannot be made again reads fail for as long as it is wrong, and at
// once no longer when it is right.
func TestIndexChangesAndCannotBeMade(t *testing.T) {
	testenv.Slow(t)
	big := text(3 << 20)
	layer := gzipLayer(t, "big", big)
	o := newOpened(t, layer)
	mustOpen(t, o).Close()
	tree := mustOpen(t, o)
	f := o.indexFile(t, layer)
	f.damage(sectionSpans)
	if err := os.RemoveAll(filepath.Join(o.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	o.store.Replace(digest.FromBytes(layer.Content), make([]byte, len(layer.Content)))
	for range 3 {
		if _, err := iofs.ReadFile(tree.FS(t.Context()), "big"); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("read with a damaged index: %v, want ErrIndex", err)
		}
	}
	o.store.Replace(digest.FromBytes(layer.Content), layer.Content)
	f.overwrite(f.good)
	o.has(tree, "big", big)
}

// The digests of files are read again when they are needed again.
func TestDigestsChangeUnderTree(t *testing.T) {
	layer := gzipLayer(t, "a", "content of a")
	o := newOpened(t, layer)
	mustOpen(t, o).Close()
	tree := mustOpen(t, o)
	f := o.indexFile(t, layer)
	f.damage(sectionDigests)
	n, err := tree.Tree().Lookup("a", false)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok, err := n.ContentDigest(); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("ContentDigest() = %s, %v, %v; want ErrIndex", d, ok, err)
	}
	// It is made again behind it.
	want := digest.FromString("content of a")
	for deadline := time.Now().Add(time.Minute); ; {
		d, ok, err := n.ContentDigest()
		if err == nil && ok && d == want {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ContentDigest() = %s, %v, %v; want %s", d, ok, err, want)
		}
		time.Sleep(time.Millisecond)
	}
	o.has(tree, "a", "content of a")
}

// An index that has a wrong sum for a chunk, with a checksum that is right, is
// found out by the chunk, and the tree is read on by another.
func TestIndexWithWrongSum(t *testing.T) {
	testenv.Slow(t)
	big := text(3 << 20)
	layer := gzipLayer(t, "big", big)
	o := newOpened(t, layer)
	mustOpen(t, o).Close()
	f := o.indexFile(t, layer)
	_, off, _ := f.section(sectionChunks)
	forged := slices.Clone(f.good)
	forged[off+32*3] ^= 1
	f.overwrite(f.seal(forged))
	tree := mustOpen(t, o)
	o.has(tree, "big", big)
	if now, err := os.ReadFile(f.path); err != nil || !bytes.Equal(now, f.good) {
		t.Errorf("the index was not made again: %v", err)
	}
	if len(o.warns) != 1 || !strings.Contains(o.warns[0], "its index was wrong") {
		t.Errorf("warned of %q", o.warns)
	}
}

// Closing a tree ends the making of an index, and does not wait for its source.
func TestCloseWhileIndexIsMade(t *testing.T) {
	testenv.Slow(t)
	layer := gzipLayer(t, "big", text(3<<20))
	o := newOpened(t, layer)
	mustOpen(t, o).Close()
	tree := mustOpen(t, o)
	o.indexFile(t, layer).damage(sectionSpans)
	if err := os.RemoveAll(filepath.Join(o.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	var once sync.Once
	o.src.hang = func(ctx context.Context) {
		once.Do(func() { close(asked) })
		<-ctx.Done()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := iofs.ReadFile(tree.FS(context.Background()), "big"); err == nil {
			t.Error("read, with a source that says nothing")
		}
	})
	<-asked
	tree.Close()
	wg.Wait()
}
