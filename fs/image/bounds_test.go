package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// refuses opens the image, which is too big, and checks that the error names
// the layer and the bound.
func (o *opened) refuses(layer digest.Digest, bound string) {
	o.t.Helper()
	_, err := o.open(o.t.Context(), nil)
	if !errors.Is(err, layerindex.ErrTooBig) {
		o.t.Fatalf("New = %v, want %v", err, layerindex.ErrTooBig)
	}
	for _, part := range []string{"layer " + layer.String(), bound} {
		if !strings.Contains(err.Error(), part) {
			o.t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// A blob that is bigger than allowed is not asked for.
func TestNewMaxBlob(t *testing.T) {
	small, big := gzipLayer(t, "a", "1"), gzipLayer(t, "b", random(5, 1<<20))
	o := newOpened(t, small, big)
	o.bounds = image.Options{MaxBlob: 1 << 20}
	o.refuses(digest.FromBytes(big.Content), " 1048576")
	if n := o.src.read.Load(); n > int64(len(small.Content)) {
		t.Errorf("%d bytes were read of it", n)
	}
	o.bounds.MaxBlob = int64(len(big.Content))
	o.has(o.opens(), "a", "1")
}

// A layer that decodes to more than allowed leaves nothing, and is not read
// again from another place; one whose index is there is refused, too.
func TestNewMaxLayer(t *testing.T) {
	big := gzipLayer(t, "a", strings.Repeat("a", 1<<20))
	d, tarSize := digest.FromBytes(big.Content), int64(len(gunzip(t, big.Content)))
	o := newOpened(t, big)
	o.bounds = image.Options{MaxLayer: 1 << 20}
	o.refuses(d, " 1048576")
	if left := o.files(); len(left) > 0 {
		t.Errorf("left in the cache: %q", left)
	}
	o.bounds.MaxLayer = tarSize
	o.has(o.opens(), "a", strings.Repeat("a", 1<<20))

	read := o.src.read.Load()
	o.bounds.MaxLayer = tarSize - 1
	o.refuses(d, "more than")
	if err := os.Remove(filepath.Join(o.dir, "indexes", "sha256", d.Encoded())); err != nil {
		t.Fatal(err)
	}
	o.refuses(d, "more than")
	if n := o.src.read.Load(); n != read {
		t.Errorf("%d bytes were read of a layer that is in the cache", n-read)
	}
	o.bounds.MaxLayer = 0
	o.has(o.opens(), "a", strings.Repeat("a", 1<<20))
}

// A span that is too long for memory goes to a file that counts in the budget,
// and in what the cache says is temporary.
func TestLongSpanInBudget(t *testing.T) {
	testenv.Slow(t)
	long := random(3, 10<<20)
	frame := zstdLayer(t, gunzip(t, gzipLayer(t, "c", long, "d", "4").Content))
	for _, tt := range []struct {
		name   string
		budget int64
		fits   bool
	}{{"room", 64 << 20, true}, {"none", 8 << 20, false}} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOpened(t, frame)
			o.t, o.budget = t, tt.budget
			tree := o.opens()
			o.has(tree, "c", long)
			o.has(tree, "d", "4")
			n := o.cache.Stats().Temporary
			if tt.fits != (n > 10<<20) || !tt.fits && n != 0 {
				t.Errorf("%d bytes are temporary", n)
			}
			if used, err := o.cache.Usage(); err != nil || used+n > tt.budget {
				t.Errorf("%d bytes on disk, %d of them temporary, the budget is %d; %v", used+n, n, tt.budget, err)
			}
			if warned := strings.Contains(strings.Join(o.warns, "\n"), "no room for a temporary file"); warned == tt.fits {
				t.Errorf("warnings: %q", o.warns)
			}
			tree.Close()
			if n := o.cache.Stats().Temporary; n != 0 {
				t.Errorf("%d bytes are temporary when the tree is closed", n)
			}
		})
	}
}

// TestBoundsDefaults: an image is bounded unless the caller says that it is not.
func TestBoundsDefaults(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		opts                  image.Options
		metadata, layer, blob int64
	}{
		{"none given", image.Options{}, 1 << 30, 64 << 30, 16 << 30},
		{"given", image.Options{MaxMetadata: 1, MaxLayer: 2, MaxBlob: 3}, 1, 2, 3},
		{"no bound", image.Options{MaxMetadata: -1, MaxLayer: -1, MaxBlob: -1}, 0, 0, 0},
	} {
		metadata, layer, blob := image.Bounds(&tt.opts)
		if metadata != tt.metadata || layer != tt.layer || blob != tt.blob {
			t.Errorf("%s: got %d, %d and %d, want %d, %d and %d", tt.name, metadata, layer, blob, tt.metadata, tt.layer, tt.blob)
		}
	}
}
