package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// headersLayer is a plain layer of headers, whose content is "x".
func headersLayer(t testing.TB, headers ...tar.Header) sourcetest.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, 1
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "x")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return sourcetest.Layer{Content: buf.Bytes(), DiffID: digest.FromBytes(buf.Bytes())}
}

// openWith opens the image with other options than open does.
func (o *opened) openWith(ctx context.Context, opts image.Options) (*image.Image, error) {
	o.t.Helper()
	img, err := remote.Open(ctx, o.src, "")
	if err != nil {
		o.t.Fatal(err)
	}
	disk, err := cache.Open(o.dir, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { disk.Close() })
	opts.Cache = disk
	t, err := image.New(ctx, img, &opts)
	if err == nil {
		o.t.Cleanup(func() { t.Close() })
	}
	return t, err
}

// TestMaxMetadata: an image of two layers that passes the bound in one of them
// or in both together is refused, when they are read and when their indexes are
// loaded, and is not with a higher bound.
func TestMaxMetadata(t *testing.T) {
	long := strings.Repeat("n", 250)
	var a, b []tar.Header
	for i := range 50 {
		a = append(a, tar.Header{Name: fmt.Sprintf("a%d", i), PAXRecords: map[string]string{"SCHILY.xattr.user.a": fmt.Sprint(i, strings.Repeat("v", 1000))}})
		b = append(b, tar.Header{Name: fmt.Sprintf("b%d/%s", i, long)})
	}
	o := newOpened(t, headersLayer(t, a...), headersLayer(t, b...))
	refused := func(when string, limit int64, named bool) {
		t.Helper()
		_, err := o.openWith(t.Context(), image.Options{MaxMetadata: limit})
		if !errors.Is(err, layerindex.ErrMetadata) || !strings.Contains(err.Error(), "layer sha256:") || named && !strings.Contains(err.Error(), `entry "`) && !strings.Contains(err.Error(), "attribute set") {
			t.Errorf("%s, at most %d bytes: %v", when, limit, err)
		}
	}
	refused("new", 20_000, true)
	refused("new", 50_000, true) // both together
	kept := 0
	for _, name := range o.files() {
		if strings.HasPrefix(name, "/tmp/") {
			t.Errorf("after it was refused there is %s", name)
		}
		if strings.HasPrefix(name, "/indexes/") {
			kept++
		}
	}
	if kept > 1 { // the layer that came first may stay
		t.Errorf("after it was refused: %q", o.files())
	}
	var told int64
	tree, err := o.openWith(t.Context(), image.Options{MaxMetadata: 1 << 20, Metadata: func(n int64) { told = n }})
	if err != nil || tree.Tree().Len() != 1+50+50+50 || told != 0 {
		t.Fatalf("with enough: %v, told of %d", err, told)
	}
	refused("loaded", 500, false)
	refused("loaded", 20_000, false)
	refused("loaded", 50_000, false)
	refused("loaded", 70_000, false) // or either layer may be the one that is too much
	o = newOpened(t, headersLayer(t, a...))
	if _, err := o.openWith(t.Context(), image.Options{}); err != nil {
		t.Fatal(err)
	}
	refused("one loaded", 60_000, true)
}

// TestMaxMetadataImplied has few entries that make many directories: those count
// while layers are merged.
func TestMaxMetadataImplied(t *testing.T) {
	var headers []tar.Header
	for i := range 20 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("%d/%sf", i, strings.Repeat("d/", 1000))})
	}
	o := newOpened(t, headersLayer(t, headers...))
	_, err := o.openWith(t.Context(), image.Options{MaxMetadata: 1 << 20})
	var refused *fs.EntryError
	if !errors.As(err, &refused) || !errors.Is(err, layerindex.ErrMetadata) || !strings.HasPrefix(refused.Name, "9/d/") && !strings.HasPrefix(refused.Name, "8/d/") {
		t.Errorf("%.200v", err)
	}
	if _, err := o.openWith(t.Context(), image.Options{MaxMetadata: 4 << 20}); err != nil {
		t.Errorf("with enough: %v", err)
	}
}

// TestMaxMetadataLinks has hard links that heap attributes on one inode, and
// names that only hard links see.
func TestMaxMetadataLinks(t *testing.T) {
	attrs, reserved := []tar.Header{{Name: "f"}}, []tar.Header{{Name: "f"}}
	for i := range 200 {
		attrs = append(attrs, tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint("l", i), Linkname: "f",
			PAXRecords: map[string]string{fmt.Sprint("SCHILY.xattr.user.a", i): strings.Repeat("v", 1000)}})
		reserved = append(reserved, tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint(".wh..wh.plnk/", i, strings.Repeat("n", 200)), Linkname: "f"})
	}
	for name, headers := range map[string][]tar.Header{"attributes": attrs, "reserved": reserved} {
		o := newOpened(t, headersLayer(t, headers...))
		if _, err := o.openWith(t.Context(), image.Options{MaxMetadata: 1 << 20}); err != nil {
			t.Errorf("%s, with enough: %v", name, err)
		}
		if _, err := o.openWith(t.Context(), image.Options{MaxMetadata: 40_000}); !errors.Is(err, layerindex.ErrMetadata) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTooManyLayers: more layers than an image may have are refused before any
// is looked at.
func TestTooManyLayers(t *testing.T) {
	testenv.Slow(t)
	img := sourcetest.Image{}
	for range 4096 {
		img.Layers = append(img.Layers, headersLayer(t, tar.Header{Name: "a"}))
	}
	o := newOpened(t, img.Layers...)
	if tree, err := o.openWith(t.Context(), image.Options{}); err != nil || tree.Tree().Len() != 2 {
		t.Errorf("an image of one layer 4,096 times: %v", err)
	}
	many, err := remote.Open(t.Context(), o.src, "")
	if err != nil {
		t.Fatal(err)
	}
	many.Layers = append(many.Layers, many.Layers[0])
	if _, err := image.New(t.Context(), many, &image.Options{Cache: o.cache}); !errors.Is(err, fs.ErrTooLarge) {
		t.Errorf("an image of 4,097 layers: %v", err)
	}
}

// TestMergeEnds: merging ends with its context.
func TestMergeEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := newOpened(t, gzipLayer(t, "a", "x"))
	if _, err := o.openWith(ctx, image.Options{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := new(image.Layers).Merge(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Merge: %v", err)
	}
}
