package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// whole reads a layer by Whole, and returns how many bytes the source gave for it.
func (o *opened) whole(l sourcetest.Layer, again bool) (fromSource int64) {
	o.t.Helper()
	img, err := remote.Open(o.t.Context(), o.src, "")
	if err != nil {
		o.t.Fatal(err)
	}
	disk, err := cache.Open(o.dir, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	defer disk.Close()
	r, err := image.From(img, &image.Options{Cache: disk})
	if err != nil {
		o.t.Fatal(err)
	}
	defer r.Close()
	was := o.src.read.Load()
	readWhole(o.t, r, l, again)
	return o.src.read.Load() - was
}

// readWhole checks that Whole has the content of a layer.
func readWhole(t testing.TB, r *image.Resolved, l sourcetest.Layer, again bool) {
	t.Helper()
	b, release, err := r.Whole(t.Context(), digest.FromBytes(l.Content), again)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	s := remote.NewStream(t.Context(), b, nil)
	defer s.Close()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, l.Content) {
		t.Errorf("got %d bytes of the layer, error %v, want %d", len(got), err, len(l.Content))
	}
}

// TestWhole: a layer that is read whole comes from the cache as far as it is there, and
// leaves nothing there.
func TestWhole(t *testing.T) {
	l := gzipLayer(t, "a", text(3<<20))
	size := int64(len(l.Content))
	o := newOpened(t, l)
	if n := o.whole(l, false); n != size {
		t.Errorf("with an empty cache the source gave %d bytes of %d", n, size)
	}
	if left := o.files(); len(left) > 0 {
		t.Errorf("the cache has %q", left)
	}
	img := mustOpen(t, o)
	img.Close()
	o.cache.Close()
	if n := o.whole(l, false); n != 0 {
		t.Errorf("with all of it in the cache the source gave %d bytes", n)
	}
	if n := o.whole(l, true); n != size {
		t.Errorf("again, the source gave %d bytes of %d", n, size)
	}

	for _, name := range o.files() {
		if strings.HasPrefix(name, "/indexes/") {
			if err := os.Remove(o.dir + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := o.whole(l, false); n != 0 {
		t.Errorf("without its index the source gave %d bytes", n)
	}
}

// TestWholeDamaged: what is wrong in the cache comes from the source, and no more than that.
func TestWholeDamaged(t *testing.T) {
	l := gzipLayer(t, "a", noisy(9<<20))
	o := newOpened(t, l)
	mustOpen(t, o).Close()
	o.cache.Close()
	o.damageBlobs()
	if n, size := o.whole(l, false), int64(len(l.Content)); n == 0 || n > size/2 {
		t.Errorf("the source gave %d bytes of %d, want those of one chunk", n, size)
	}
}

// TestWholeForeign: a layer that is read by an index of its publisher, and was read in
// part, comes from the cache for that part.
func TestWholeForeign(t *testing.T) {
	entries := standard()
	for _, name := range []string{"big1", "big2"} {
		entries = append(entries, tarEntry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 2 << 20}, content: noisy(2 << 20)})
	}
	l := estargzLayer(t, entries, nil)
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	img := s.mustOpen("estargz", image.VouchedByManifest)
	s.hasAll(img, entries[:len(entries)-1])
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	s.useCache(s.opts.Cache.Dir())
	r, err := image.Resolve(t.Context(), s.reg.Host()+"/app:latest", &s.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.reg.Forget()
	readWhole(t, r, l, false)
	if n, size := s.reg.Bytes(registrytest.Blob), int64(len(l.Content)); n < size/4 || n > size*3/4 {
		t.Errorf("the registry sent %d bytes of %d, want those of the file that nobody read", n, size)
	}
}

// TestWholeNone: there is no layer of another digest.
func TestWholeNone(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", "b"))
	img := mustOpen(t, o)
	_, _, err := img.Resolved().Whole(t.Context(), digest.FromString("x"), false)
	if !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("error %v, want remote.ErrNotFound", err)
	}
}
