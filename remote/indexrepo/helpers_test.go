package indexrepo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// clientOptions returns options under which trying again is a matter of milliseconds,
// and which no file of this machine has a say in.
func clientOptions() *registry.Options {
	conf, err := (&hosts.ConfigFiles{Registries: []string{}, HostDirs: []string{}, DaemonJSON: []string{}}).Load()
	if err != nil {
		panic(err)
	}
	return &registry.Options{
		Credential: func(context.Context, string, string) (hosts.Credential, error) { return hosts.Credential{}, nil },
		Sites:      conf.Sites, CertDirs: []string{},
		MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	}
}

// repository returns a repository of a registry.
func repository(t *testing.T, host, name string) *registry.Repository {
	t.Helper()
	client := registry.New(clientOptions())
	t.Cleanup(func() { client.Close() })
	return client.Repository(remote.Reference{Registry: host, Repository: name, Tag: "latest"})
}

func newServer(t *testing.T) *registrytest.Server {
	return registrytest.New(t, &registrytest.Options{Writable: true})
}

// noise returns n bytes that depend on n and seed alone.
func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n)}).Read(p)
	return p
}

// testIndex returns the index of a layer, as far as this package looks at one.
func testIndex(layer int) indexrepo.Index {
	index, digests := noise(uint64(layer), 5000+layer), noise(uint64(layer)+1<<8, 32*layer)
	x := indexrepo.Index{
		Description: indexrepo.Description{
			Layer: layerDigest(layer), Codec: "gzip", Header: sha256.Sum256(index), Listing: int64(1000 + layer),
			Index: ocispec.Descriptor{Digest: digest.FromBytes(index), Size: int64(len(index))},
		},
		IndexContent: bytes.NewReader(index),
	}
	if layer > 0 { // the first one has no digests
		x.Digests = ocispec.Descriptor{Digest: digest.FromBytes(digests), Size: int64(len(digests))}
		x.DigestsContent = bytes.NewReader(digests)
	}
	return x
}

func layerDigest(layer int) digest.Digest { return digest.FromString(fmt.Sprint("layer ", layer)) }

// testImage returns an image with some layers, and their digests.
func testImage(beside bool, layers ...int) (*indexrepo.Image, []digest.Digest) {
	img := &indexrepo.Image{Beside: beside, Version: "imgfs of a test", Manifest: ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint("image", layers)), Size: 1234}}
	var digests []digest.Digest
	for _, l := range layers {
		img.Layers = append(img.Layers, testIndex(l))
		digests = append(digests, layerDigest(l))
	}
	return img, digests
}

// checkFound compares what was found with what was published.
func checkFound(t *testing.T, found map[digest.Digest]*indexrepo.Published, layers ...int) {
	t.Helper()
	if len(found) != len(layers) {
		t.Errorf("%d layers found, want %d", len(found), len(layers))
	}
	for _, l := range layers {
		want := testIndex(l)
		got := found[layerDigest(l)]
		if got == nil {
			t.Errorf("layer %d is not found", l)
			continue
		}
		if got.Layer != want.Layer || got.Codec != want.Codec || got.Header != want.Header || got.Listing != want.Listing ||
			got.Index.Digest != want.Index.Digest || got.Index.Size != want.Index.Size || got.Digests.Digest != want.Digests.Digest || got.Digests.Size != want.Digests.Size {
			t.Errorf("layer %d: got %+v, want %+v", l, got.Description, want.Description)
		}
		if (got.DigestsBlob == nil) != (want.DigestsContent == nil) {
			t.Errorf("layer %d: got the digests %v", l, got.DigestsBlob)
		}
		p, q := make([]byte, 700), make([]byte, 700)
		if _, err := got.IndexBlob.ReadAt(t.Context(), p, 300); err != nil {
			t.Errorf("layer %d: %v", l, err)
		}
		if want.IndexContent.ReadAt(q, 300); !bytes.Equal(p, q) {
			t.Errorf("layer %d has another index", l)
		}
	}
}

func openCache(t *testing.T, dir string) *cache.Cache {
	t.Helper()
	c, err := cache.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newFinder returns a finder that knows of nothing.
func newFinder(t *testing.T) *indexrepo.Finder {
	t.Helper()
	return &indexrepo.Finder{Meta: openCache(t, t.TempDir()).Meta}
}
