package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestNewAtTheSameTime opens a new image several times at once, each with a
// Cache of its own, as several processes do: each layer is read once.
func TestNewAtTheSameTime(t *testing.T) {
	var layers []sourcetest.Layer
	size := int64(0)
	for i := range 3 {
		l := gzipLayer(t, fmt.Sprintf("f%d", i), random(uint64(i), 1<<20))
		layers = append(layers, l)
		size += int64(len(l.Content))
	}
	o := newOpened(t, layers...)
	var all sync.WaitGroup
	var built atomic.Int32
	count := func(p image.Progress) {
		if p.Built {
			built.Add(1)
		}
	}
	for range 4 {
		all.Go(func() {
			img, err := remote.Open(t.Context(), o.src, "")
			if err != nil {
				t.Error(err)
				return
			}
			disk, err := cache.Open(o.dir, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer disk.Close()
			tree, err := image.New(t.Context(), img, &image.Options{Cache: disk, Progress: count})
			if err != nil {
				t.Error(err)
				return
			}
			defer tree.Close()
			o.has(tree, "f1", random(1, 1<<20))
		})
	}
	all.Wait()
	if got := built.Load(); got != 3 {
		t.Errorf("%d indexes made, want 3", got)
	}
	if got := o.src.read.Load(); got != size {
		t.Errorf("%d bytes read from the source, the layers have %d", got, size)
	}
}

// TestNewUnkeptIndex: where an index cannot be kept there is a warning, and the
// tree works.
func TestNewUnkeptIndex(t *testing.T) {
	l := gzipLayer(t, "a", "1", "b", random(1, 100_000))
	top := gzipLayer(t, "c", "3")
	o := newOpened(t, l, top)
	disk, err := cache.Open(o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	disk.Close()
	for _, l := range []sourcetest.Layer{l, top} {
		// Nothing can be renamed to what is a directory.
		name := filepath.Join(o.dir, "indexes", "sha256", digest.FromBytes(l.Content).Encoded())
		if err := os.MkdirAll(filepath.Join(name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tree := o.opens()
	o.has(tree, "a", "1")
	o.has(tree, "b", random(1, 100_000))
	o.has(tree, "c", "3")
	if len(o.warns) != 1 || !strings.Contains(o.warns[0], "not a regular file") {
		t.Errorf("warnings %q, want one for both indexes", o.warns)
	}
}

// TestNewBudgetTooSmall: a budget without room for an index does not fail a
// mount either.
func TestNewBudgetTooSmall(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", random(1, 300_000)))
	o.budget = 4096
	o.has(o.opens(), "a", random(1, 300_000))
	if len(o.warns) == 0 || !strings.Contains(strings.Join(o.warns, "\n"), "not kept") {
		t.Errorf("warnings: %q", o.warns)
	}
}

// TestNewUnavailable names the layer, and where it is not.
func TestNewUnavailable(t *testing.T) {
	l := gzipLayer(t, "a", "1")
	o := newOpened(t, l)
	o.faulty().err = fmt.Errorf("no network: %w", remote.ErrUnavailable)
	_, err := o.open(t.Context(), nil)
	if !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), digest.FromBytes(l.Content).String()) ||
		!strings.Contains(err.Error(), "not in the cache") {
		t.Errorf("New = %v", err)
	}
}

// localSource is a source whose blobs are on this machine.
type localSource struct{ remote.Source }

type localBlob struct{ remote.Blob }

func (localBlob) Local() bool { return true }

func (s localSource) Blob(d ocispec.Descriptor) (remote.Blob, error) {
	b, err := s.Source.Blob(d)
	return localBlob{b}, err
}

// TestNewLocal keeps the indexes of layers that are on this machine, and not
// their bytes.
func TestNewLocal(t *testing.T) {
	l := gzipLayer(t, "a", random(1, 600_000))
	store := sourcetest.NewStore()
	src := localSource{store.Source("test", store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{l}}))}
	o := &opened{t: t, store: store, dir: t.TempDir()}
	for range 2 {
		img, err := remote.Open(t.Context(), src, "")
		if err != nil {
			t.Fatal(err)
		}
		disk, err := cache.Open(o.dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		tree, err := image.New(t.Context(), img, &image.Options{Cache: disk})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		o.has(tree, "a", random(1, 600_000))
		if err := tree.Fill(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	indexes := 0
	for _, name := range o.files() {
		if strings.HasPrefix(name, "/indexes/") {
			indexes++
		}
		if strings.HasPrefix(name, "/blobs/") {
			t.Errorf("%s is in the cache", name)
		}
	}
	if indexes != 1 {
		t.Errorf("%d indexes, want 1", indexes)
	}
}

// TestNewNotesTheImage tells the cache what was opened.
func TestNewNotesTheImage(t *testing.T) {
	l := gzipLayer(t, "a", "1")
	o := newOpened(t, l, l)
	o.opens()
	disk, err := cache.Open(o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	images, err := disk.Meta.Images()
	if err != nil || len(images) != 1 {
		t.Fatalf("images %+v, %v, want one", images, err)
	}
	img := images[0]
	if img.Name != "test" || img.Manifest.Validate() != nil || !strings.HasPrefix(img.Platform, "linux/") || len(img.Layers) != 2 ||
		img.Layers[1] != (meta.ImageLayer{Digest: digest.FromBytes(l.Content), Size: int64(len(l.Content)), DiffID: l.DiffID}) {
		t.Errorf("noted %+v", img)
	}
	if age := time.Since(img.Used); age < 0 || age > time.Minute {
		t.Errorf("used %v", img.Used)
	}
	if v := disk.Blobs.Verification(digest.FromBytes(l.Content)); v != meta.VerifiedWhole {
		t.Errorf("verified %v, want whole", v)
	}
}

// TestFill brings what is missing, once.
func TestFill(t *testing.T) {
	testenv.Slow(t)
	l := gzipLayer(t, "a", random(1, 2<<20))
	top := gzipLayer(t, "b", random(2, 1<<20))
	o := newOpened(t, l, top, l)
	o.opens()
	o.dropBlobs()
	tree := o.opens()
	o.read(tree, "b")
	o.src.read.Store(0)
	size := int64(len(l.Content) + len(top.Content))
	var have, all int64
	if err := tree.Fill(t.Context(), func(h, a int64) { have, all = h, a }); err != nil {
		t.Fatal(err)
	}
	if have != size || all != size {
		t.Errorf("progress ended at %d of %d, want %d", have, all, size)
	}
	if got := o.src.read.Load(); got != int64(len(l.Content)) {
		t.Errorf("%d bytes fetched, want the %d that were missing", got, len(l.Content))
	}
	// All of it can be read without the source.
	o.faulty().err = errors.New("no network")
	o.has(o.opens(), "a", random(1, 2<<20))
	empty, err := new(image.Layers).Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Fill(t.Context(), nil); err != nil {
		t.Errorf("of an image without layers: %v", err)
	}
}

// TestNewFullDisk opens an image with a cache on a disk that takes nothing, not
// even a directory.
func TestNewFullDisk(t *testing.T) {
	testenv.Slow(t)
	big, long := random(1, 1<<20), random(3, 10<<20)
	frame := zstdLayer(t, gunzip(t, gzipLayer(t, "c", long).Content)) // cannot be entered, and is too long for memory
	o := newOpened(t, gzipLayer(t, "a", big), gzipLayer(t, "b", "2"), frame)
	testenv.SmallDisk(t, o.dir, 256<<10)
	disk, err := cache.Open(o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	disk.Close()
	f, err := os.Create(filepath.Join(o.dir, "tmp", "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(o.dir, "indexes", "sha256")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err) // or else the next to open the cache removes it
	}
	tree := o.opens()
	o.has(tree, "a", big)
	o.has(tree, "b", "2")
	o.has(tree, "c", long)
	if len(o.warns) != 1 || !strings.Contains(o.warns[0], "no space left on device") {
		t.Errorf("warnings: %q, want one", o.warns)
	}
}
