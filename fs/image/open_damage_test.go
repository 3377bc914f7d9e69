package image_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// place is how an error tells where a layer is damaged.
var place = regexp.MustCompile(`at (byte|offset) \d+|ends after \d+ of \d+ bytes|ends at byte \d+|more than \d+ bytes|\d+ bytes instead of \d+`)

// zstdLayer is a gzipLayer's tar in a zstd frame with a checksum.
func zstdLayer(t *testing.T, tarBytes []byte) sourcetest.Layer {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return sourcetest.Layer{
		Content:   w.EncodeAll(tarBytes, nil),
		MediaType: ocispec.MediaTypeImageLayerZstd, DiffID: digest.FromBytes(tarBytes),
	}
}

// TestNewDamaged cuts a small layer at every byte and flips a bit of every
// byte: of the blob alone, and of one whose digest the manifest has right. The
// error names the layer and the place, and nothing stays in the cache.
func TestNewDamaged(t *testing.T) {
	testenv.Slow(t)
	gz := gzipLayer(t, "a", "1", "b/c", strings.Repeat("22", 300))
	for name, layer := range map[string]sourcetest.Layer{"gzip": gz, "zstd": zstdLayer(t, gunzip(t, gz.Content))} {
		t.Run(name, func(t *testing.T) {
			// A few bytes of a gzip header may be anything, and the few bits
			// that fill up the last byte of its stream.
			harmless := 0
			for i := range layer.Content {
				cut := layer.Content[:i]
				flipped := slices.Clone(layer.Content)
				flipped[i] ^= 1 << (i % 8)
				for _, bad := range [][]byte{cut, flipped} {
					o := newOpened(t, layer)
					o.store.Replace(digest.FromBytes(layer.Content), bad)
					checkDamaged(t, o, layer.Content, len(bad) < len(layer.Content), layerindex.ErrDigest)

					rightly := layer
					rightly.Content = bad
					o = newOpened(t, rightly)
					if tree, err := o.open(t.Context(), nil); err == nil && len(bad) == len(layer.Content) {
						harmless++
						o.has(tree, "a", "1")
						continue
					}
					// Nothing at all is a layer, though another one.
					checkDamaged(t, o, bad, len(bad) > 0, layerindex.ErrDiffID)
				}
			}
			if harmless > 9 {
				t.Errorf("%d of %d flipped bits did no harm", harmless, len(layer.Content))
			}
		})
	}
}

// checkDamaged opens an image whose only layer is said to be blob. The error
// tells a place, or is the one that has none.
func checkDamaged(t *testing.T, o *opened, blob []byte, placed bool, without error) {
	t.Helper()
	_, err := o.open(t.Context(), nil)
	if err == nil {
		t.Fatal("a damaged layer was opened")
	}
	name := "layer " + digest.FromBytes(blob).String()
	if !strings.Contains(err.Error(), name) || placed && !place.MatchString(err.Error()) {
		t.Fatalf("the error does not name the layer or the place: %v", err)
	}
	if !placed && !errors.Is(err, without) {
		t.Fatalf("%v, want %v", err, without)
	}
	if left := o.files(); len(left) != 0 {
		t.Fatalf("left in the cache: %q", left)
	}
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
