package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// An OpenFunc returns a source whose reference names what top describes and
// that serves what store holds, wrong content included. If store does not
// have top's content, the reference names nothing: either the source's
// Resolve or the OpenFunc itself returns that error. It registers its own
// cleaning up with t.
type OpenFunc func(t *testing.T, store *Store, top ocispec.Descriptor) (remote.Source, error)

// Options are the settings of Run. Nil and zero values mean the defaults.
type Options struct {
	// OwnManifest is for sources that hold layers and configs but make the
	// manifest themselves: they have no image indexes and nothing with a
	// wrong digest.
	OwnManifest bool
}

// Run checks what the documentation of remote.Source and remote.Blob says on
// a source that open returns. Its layers are plain random bytes, not tars.
func Run(t *testing.T, open OpenFunc, opts *Options) {
	s := suite{open: open}
	t.Run("image", s.testImage)
	t.Run("ranges", s.testRanges)
	t.Run("concurrent", s.testConcurrent)
	t.Run("cancelled", s.testCancelled)
	t.Run("not found", s.testNotFound)
	t.Run("bad digest", s.testBadDigest)
	if opts == nil || !opts.OwnManifest {
		t.Run("index", s.testIndex)
		t.Run("wrong content", s.testWrongContent)
	}
}

type suite struct {
	open OpenFunc
}

func (s suite) source(t *testing.T, store *Store, top ocispec.Descriptor) remote.Source {
	t.Helper()
	src, err := s.open(t, store, top)
	if err != nil {
		t.Fatalf("cannot open the source: %v", err)
	}
	return src
}

// noise returns n bytes that are the same for the same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func (s suite) testImage(t *testing.T) {
	store := NewStore()
	layers := []Layer{{Content: noise(1, 1)}, {Content: noise(2, 4096)}, {Content: noise(3, 1<<20+1)}, {Content: noise(1, 1)}}
	top := store.AddImage(Image{Docker: true, Layers: layers})
	src := s.source(t, store, top)
	if src.Name() == "" {
		t.Error("Name is empty")
	}
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Layers) != len(layers) {
		t.Fatalf("got %d layers, want %d", len(img.Layers), len(layers))
	}
	for i, l := range img.Layers {
		checkContent(t, l, layers[i].Content)
	}
}

// checkContent reads all of b.
func checkContent(t *testing.T, b remote.Blob, want []byte) {
	t.Helper()
	if got, want := b.Digest(), digest.FromBytes(want); got != want {
		t.Errorf("Digest: got %s, want %s", got, want)
	}
	if got, want := b.Size(), int64(len(want)); got != want {
		t.Errorf("Size of %s: got %d, want %d", b.Digest(), got, want)
	}
	r := remote.NewStream(t.Context(), b, nil)
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("blob %s: got %d bytes and error %v, want the %d bytes that were stored", b.Digest(), len(got), err, len(want))
	}
}

// oneBlob returns a blob of size bytes from a source, and its content.
func (s suite) oneBlob(t *testing.T, size int) (remote.Blob, []byte) {
	t.Helper()
	store := NewStore()
	content := noise(4, size)
	img, err := remote.Open(t.Context(), s.source(t, store, store.AddImage(Image{Docker: true, Layers: []Layer{{Content: content}}})), "")
	if err != nil {
		t.Fatal(err)
	}
	return img.Layers[0], content
}

func (s suite) testRanges(t *testing.T) {
	const size = 100_000
	b, content := s.oneBlob(t, size)
	for _, r := range []struct{ off, n int }{
		{0, 0}, {0, 1}, {1, 1}, {4095, 2}, {0, size - 1}, {0, size}, {0, size + 1}, {1, size - 1}, {1, size},
		{size - 1, 1}, {size - 1, 2}, {size, 1}, {size + 1, 1}, {10 * size, size},
	} {
		want := content[min(r.off, size):min(r.off+r.n, size)]
		p := make([]byte, r.n)
		n, err := b.ReadAt(t.Context(), p, int64(r.off))
		if !bytes.Equal(p[:n], want) {
			t.Errorf("ReadAt(%d bytes at %d): got %d bytes, want %d, or others", r.n, r.off, n, len(want))
		}
		if short := len(want) < r.n; short && err != io.EOF || !short && err != nil && err != io.EOF || n == r.n && r.off+r.n < size && err != nil {
			t.Errorf("ReadAt(%d bytes at %d of %d): got error %v", r.n, r.off, size, err)
		}
	}
	if n, err := b.ReadAt(t.Context(), make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("ReadAt at -1: got %d and error %v, want an error that is not io.EOF", n, err)
	}
}

func (s suite) testConcurrent(t *testing.T) {
	const size = 300_000
	b, content := s.oneBlob(t, size)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			p := make([]byte, 10_000)
			for j := range 8 {
				off := (i*size/16 + j*7919) % (size - len(p))
				if _, err := b.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, content[off:off+len(p)]) {
					t.Errorf("ReadAt(%d bytes at %d) with others: wrong bytes or error %v", len(p), off, err)
				}
			}
		})
	}
	wg.Wait()
}

func (s suite) testCancelled(t *testing.T) {
	store := NewStore()
	top := store.AddImage(Image{Docker: true, Layers: []Layer{{Content: noise(5, 1000)}}})
	src := s.source(t, store, top)
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := src.Resolve(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Resolve: got error %v, want %v", err, context.Canceled)
	}
	if _, err := src.Fetch(ctx, img.ConfigDescriptor); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch: got error %v, want %v", err, context.Canceled)
	}
	if _, err := img.Layers[0].ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadAt: got error %v, want %v", err, context.Canceled)
	}
	if _, err := img.Layers[0].ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
		t.Errorf("ReadAt after a cancelled one: %v", err)
	}
}

func (s suite) testNotFound(t *testing.T) {
	store := NewStore()
	top := store.AddImage(Image{Docker: true, Layers: []Layer{{Content: noise(6, 1000)}}})
	src := s.source(t, store, top)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString("absent"), Size: 6}
	if _, err := src.Fetch(t.Context(), desc); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("Fetch of an absent blob: got error %v, want %v", err, remote.ErrNotFound)
	}
	b, err := src.Blob(desc)
	if err == nil {
		_, err = b.ReadAt(t.Context(), make([]byte, 6), 0)
	}
	if !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("ReadAt of an absent blob: got error %v, want %v", err, remote.ErrNotFound)
	}

	store.Delete(top.Digest)
	src, err = s.open(t, store, top)
	if err == nil {
		_, err = src.Resolve(t.Context())
	}
	if !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("Resolve of an absent image: got error %v, want %v", err, remote.ErrNotFound)
	}
}

func (s suite) testBadDigest(t *testing.T) {
	store := NewStore()
	src := s.source(t, store, store.AddImage(Image{Docker: true, Layers: []Layer{{Content: noise(7, 1000)}}}))
	for _, d := range []digest.Digest{"", "sha256", "sha256:", "sha256:00", "sha256:../../../index.json", "../..:index.json", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: 10}
		if _, err := src.Fetch(t.Context(), desc); err == nil {
			t.Errorf("Fetch of digest %q: no error", d)
		}
		b, err := src.Blob(desc)
		if err == nil {
			_, err = b.ReadAt(t.Context(), make([]byte, 10), 0)
		}
		if err == nil {
			t.Errorf("Blob and ReadAt of digest %q: no error", d)
		}
	}
}

func (s suite) testIndex(t *testing.T) {
	store := NewStore()
	content := noise(8, 1000)
	other := store.AddImage(Image{Platform: "linux/s390x", Layers: []Layer{{Content: noise(9, 10)}}})
	wanted := store.AddImage(Image{Platform: "linux/arm64", Layers: []Layer{{Content: content}}})
	top := store.AddIndex(other, wanted)
	src := s.source(t, store, top)
	got, err := src.Resolve(t.Context())
	if err != nil || got.Digest != top.Digest || got.Size != top.Size || got.MediaType != top.MediaType {
		t.Fatalf("Resolve: got %s of %d bytes, %s, and error %v, want %s of %d bytes, %s",
			got.Digest, got.Size, got.MediaType, err, top.Digest, top.Size, top.MediaType)
	}
	img, err := remote.Open(t.Context(), src, "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	if img.Descriptor.Digest != wanted.Digest {
		t.Errorf("got manifest %s, want %s", img.Descriptor.Digest, wanted.Digest)
	}
	for _, desc := range []ocispec.Descriptor{img.Top, img.Descriptor, img.ConfigDescriptor} {
		want, _ := store.Get(desc.Digest)
		if got, err := src.Fetch(t.Context(), desc); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Fetch of %s: got %q and error %v, want %q", desc.Digest, got, err, want)
		}
	}
	checkContent(t, img.Layers[0], content)
	if _, err := remote.Open(t.Context(), src, "linux/riscv64"); !errors.Is(err, remote.ErrPlatform) {
		t.Errorf("Open for another platform: got error %v, want %v", err, remote.ErrPlatform)
	}
}

func (s suite) testWrongContent(t *testing.T) {
	store := NewStore()
	top := store.AddImage(Image{Docker: true, Layers: []Layer{{Content: noise(10, 1000)}}})
	img, err := remote.Open(t.Context(), store.Source("", top), "")
	if err != nil {
		t.Fatal(err)
	}
	config := bytes.Clone(img.Config)
	config[0] ^= 1
	store.Replace(img.ConfigDescriptor.Digest, config)
	src := s.source(t, store, top)
	if got, err := src.Fetch(t.Context(), img.ConfigDescriptor); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("Fetch of changed content: got %d bytes and error %v, want %v", len(got), err, remote.ErrDigest)
	}
	for _, by := range []int64{-1, 1} {
		desc := img.Descriptor
		desc.Size += by
		got, err := src.Fetch(t.Context(), desc)
		if !errors.Is(err, remote.ErrDigest) && (err != nil || desc.Digest.Algorithm().FromBytes(got) != desc.Digest) {
			t.Errorf("Fetch of %d bytes more than there are: got %d bytes and error %v, want %v or what has the digest", by, len(got), err, remote.ErrDigest)
		}
		desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: img.Layers[0].Digest(), Size: 1000 + by}
		b, err := src.Blob(desc)
		if err == nil && remote.IsLocal(b) && b.Size() == 1000 {
			checkContent(t, b, noise(10, 1000)) // digests decide
			continue
		}
		if err == nil {
			_, err = b.ReadAt(t.Context(), make([]byte, desc.Size), 0)
		}
		if err == nil || err == io.EOF {
			t.Errorf("ReadAt of a blob of 1000 bytes described as %d: got error %v, want one that is not io.EOF", desc.Size, err)
		}
	}
}
