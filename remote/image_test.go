package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// oneLayer is an image for platform of one layer, which holds the platform's
// name.
func oneLayer(platform string) sourcetest.Image {
	return sourcetest.Image{Platform: platform, Layers: []sourcetest.Layer{{Content: []byte(platform)}}}
}

// without removes the platform from an entry of an image index.
func without(desc ocispec.Descriptor) ocispec.Descriptor {
	desc.Platform = nil
	return desc
}

func TestOpenPlatforms(t *testing.T) {
	for _, c := range []struct {
		name string
		// entries of the image index.
		entries string
		ask     string
		// want is the entry that is chosen, or "" for ErrPlatform.
		want string
	}{
		{"exact", "linux/amd64 linux/arm64 linux/s390x", "linux/arm64", "linux/arm64"},
		{"the first of equals", "linux/arm64 linux/arm64/v8", "linux/arm64/v8", "linux/arm64"},
		{"arm64 is arm64/v8", "linux/amd64 linux/arm64/v8", "linux/arm64", "linux/arm64/v8"},
		{"arm64/v8 is arm64", "linux/amd64 linux/arm64", "linux/arm64/v8", "linux/arm64"},
		{"aarch64", "linux/amd64 linux/arm64", "aarch64", "linux/arm64"},
		{"arm/v7 exact", "linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7", "linux/arm/v7"},
		{"arm/v7 falls back to v6", "linux/arm/v5 linux/arm/v6", "linux/arm/v7", "linux/arm/v6"},
		{"arm/v7 falls back to v5", "linux/amd64 linux/arm/v5", "linux/arm/v7", "linux/arm/v5"},
		{"arm/v6 does not take v7", "linux/arm/v7", "linux/arm/v6", ""},
		{"arm means v7", "linux/arm/v6 linux/arm/v7", "linux/arm", "linux/arm/v7"},
		{"arm64 runs arm", "linux/amd64 linux/arm/v7", "linux/arm64", "linux/arm/v7"},
		{"amd64 runs 386", "linux/s390x linux/386", "linux/amd64", "linux/386"},
		{"amd64 before 386", "linux/386 linux/amd64", "linux/amd64", "linux/amd64"},
		{"amd64/v3 falls back", "linux/amd64 linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v2"},
		{"amd64 does not take v2", "linux/amd64/v2", "linux/amd64", ""},
		{"another system", "windows/amd64 linux/amd64", "linux/amd64", "linux/amd64"},
		{"none", "linux/amd64 linux/arm/v7", "linux/s390x", ""},
		{"no such platform", "linux/amd64", "linux/amd64/v2/x", ""},
		{"nonsense", "linux/amd64", "*", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := sourcetest.NewStore()
			var entries []ocispec.Descriptor
			chosen := make(map[digest.Digest]string)
			for _, p := range strings.Fields(c.entries) {
				desc := store.AddImage(oneLayer(p))
				entries = append(entries, desc)
				chosen[desc.Digest] = p
			}
			img, err := remote.Open(t.Context(), store.Source("test", store.AddIndex(entries...)), c.ask)
			if c.want == "" {
				if !errors.Is(err, remote.ErrPlatform) {
					t.Fatalf("%s from %s: got error %v, want %v", c.ask, c.entries, err, remote.ErrPlatform)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s from %s: %v", c.ask, c.entries, err)
			}
			if got := chosen[img.Descriptor.Digest]; got != c.want {
				t.Errorf("%s from %s: got %s, want %s", c.ask, c.entries, got, c.want)
			}
		})
	}
}

func TestOpenPlatformError(t *testing.T) {
	store := sourcetest.NewStore()
	src := store.Source("quay.io/a/b:c", store.AddIndex(
		store.AddImage(oneLayer("linux/amd64")), store.AddImage(oneLayer("linux/arm")), store.AddImage(oneLayer("linux/amd64")),
		without(store.AddImage(oneLayer("linux/riscv64")))))
	_, err := remote.Open(t.Context(), src, "linux/s390x")
	const want = "quay.io/a/b:c: no such platform: linux/s390x; there is linux/amd64, linux/arm/v7, linux/riscv64"
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}

func TestOpenPlatformErrorIsHarmless(t *testing.T) {
	store := sourcetest.NewStore()
	var entries []ocispec.Descriptor
	for i := range 2000 {
		entries = append(entries, ocispec.Descriptor{MediaType: manifestType, Digest: sum, Size: 1,
			Platform: &ocispec.Platform{OS: "linux", Architecture: fmt.Sprintf("\x1b[2J%d", i)}})
	}
	_, err := remote.Open(t.Context(), store.Source("test", store.AddIndex(entries...)), "linux/s390x")
	if !errors.Is(err, remote.ErrPlatform) || len(err.Error()) > 2000 || strings.Contains(err.Error(), "\x1b") || !strings.HasSuffix(err.Error(), "1968 more") {
		t.Errorf("got error %.2000q", err)
	}
}

// attestation is an entry as BuildKit adds it for each image.
func attestation(store *sourcetest.Store) ocispec.Descriptor {
	desc := store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Config: store.PutJSON(ocispec.MediaTypeImageConfig, map[string]string{"os": "unknown", "architecture": "unknown"}),
		Layers: []ocispec.Descriptor{store.Put("application/vnd.in-toto+json", []byte("{}"))},
	})
	desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	return desc
}

func TestOpenIndexEntries(t *testing.T) {
	store := sourcetest.NewStore()
	wanted := store.AddImage(oneLayer("linux/arm64"))
	other := store.AddImage(oneLayer("linux/s390x"))
	annotated := without(store.AddImage(sourcetest.Image{Platform: "linux/arm64", Layers: []sourcetest.Layer{{Content: []byte("attestation")}}}))
	annotated.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	artifact := store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: store.Put("application/vnd.example+json", []byte("{}"))})
	unknownType := store.Put("application/vnd.example.thing", []byte("{}"))
	embedded := wanted
	embedded.Data = []byte("something else")
	nested := store.AddIndex(wanted)
	nestedFor := nested
	nestedFor.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	absentOther := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: sum, Size: 10, Platform: other.Platform}
	emptyConfig := without(store.AddImage(sourcetest.Image{Config: map[string]any{"os": "", "architecture": ""}, Layers: oneLayer("x").Layers}))
	for _, c := range []struct {
		name string
		top  ocispec.Descriptor
		want error
	}{
		{"attestation by platform", store.AddIndex(attestation(store), wanted), nil},
		{"attestation by annotation", store.AddIndex(annotated, wanted), nil},
		{"only attestations", store.AddIndex(annotated, attestation(store)), remote.ErrPlatform},
		{"empty", store.AddIndex(), remote.ErrPlatform},
		{"an artifact without a platform", store.AddIndex(artifact, without(wanted)), nil},
		{"an entry of another kind", store.AddIndex(unknownType, wanted), nil},
		{"no platforms", store.AddIndex(without(other), without(wanted)), nil},
		{"no platform, none fits", store.AddIndex(without(other)), remote.ErrPlatform},
		{"no platform, not in the config either", store.AddIndex(emptyConfig, wanted), nil},
		{"no platform, not in the config either, and none fits", store.AddIndex(emptyConfig, other), remote.ErrPlatform},
		{"a stated platform comes first", store.AddIndex(without(annotated), wanted), nil},
		{"embedded data", store.AddIndex(embedded), nil},
		{"nested", store.AddIndex(other, nested), nil},
		{"nested for a platform", store.AddIndex(absentOther, nestedFor), nil},
		{"nested twice", store.AddIndex(store.AddIndex(wanted)), nil},
		{"nested three times", store.AddIndex(store.AddIndex(store.AddIndex(wanted))), nil},
		{"nested four times", store.AddIndex(store.AddIndex(store.AddIndex(store.AddIndex(wanted)))), remote.ErrUnsupported},
		{"nested absent", store.AddIndex(without(absentOther)), remote.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, err := remote.Open(t.Context(), store.Source("test", c.top), "linux/arm64")
			if !errors.Is(err, c.want) || err == nil && c.want != nil {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if err == nil && img.Descriptor.Digest != wanted.Digest {
				t.Errorf("got manifest %s, want %s", img.Descriptor.Digest, wanted.Digest)
			}
		})
	}
}

func TestOpenSinglePlatform(t *testing.T) {
	for _, c := range []struct {
		image, ask string
		want       error
	}{
		{"linux/s390x", "", nil},
		{"linux/s390x", "linux/s390x", nil},
		{"linux/s390x", "linux/amd64", remote.ErrPlatform},
		{"linux/arm/v6", "linux/arm/v7", nil},
		{"linux/arm/v7", "linux/arm/v6", remote.ErrPlatform},
		{"linux/386", "linux/amd64", nil},
		{"windows/amd64", "linux/amd64", remote.ErrPlatform},
		{"", "linux/amd64", nil},
	} {
		store := sourcetest.NewStore()
		img := oneLayer(c.image)
		if c.image == "" {
			img.Config = map[string]any{"os": "", "architecture": ""}
		}
		got, err := remote.Open(t.Context(), store.Source("test", store.AddImage(img)), c.ask)
		if !errors.Is(err, c.want) || err == nil && c.want != nil {
			t.Errorf("an image for %q, asked for %q: got error %v, want %v", c.image, c.ask, err, c.want)
		}
		if err == nil && c.image != "" && platforms.Format(got.Platform) != c.image {
			t.Errorf("got platform %+v, want %s", got.Platform, c.image)
		}
	}
}

func TestOpenHostPlatform(t *testing.T) {
	store := sourcetest.NewStore()
	wanted := store.AddImage(oneLayer(platforms.DefaultString()))
	img, err := remote.Open(t.Context(), store.Source("test", store.AddIndex(store.AddImage(oneLayer("plan9/mips")), wanted)), "")
	if err != nil {
		t.Fatal(err)
	}
	if img.Descriptor.Digest != wanted.Digest {
		t.Errorf("got manifest %s, want that for %s, %s", img.Descriptor.Digest, platforms.DefaultString(), wanted.Digest)
	}
}

func TestOpenParts(t *testing.T) {
	store := sourcetest.NewStore()
	layers := []sourcetest.Layer{{Content: []byte("one"), DiffID: sum}, {Content: []byte("two"), MediaType: ocispec.MediaTypeImageLayerZstd}}
	manifest := store.AddImage(sourcetest.Image{Platform: "linux/arm/v6", Layers: layers})
	top := store.AddIndex(manifest)
	img, err := remote.Open(t.Context(), store.Source("test", top), "linux/arm/v6")
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := store.Get(top.Digest)
	content, _ := store.Get(manifest.Digest)
	config, _ := store.Get(img.ConfigDescriptor.Digest)
	if img.Top.Digest != top.Digest || string(img.Raw) != string(raw) {
		t.Errorf("top: got %s, %q, want %s, %q", img.Top.Digest, img.Raw, top.Digest, raw)
	}
	if img.Descriptor.Digest != manifest.Digest || string(img.Manifest) != string(content) {
		t.Errorf("manifest: got %s, %q, want %s, %q", img.Descriptor.Digest, img.Manifest, manifest.Digest, content)
	}
	if string(img.Config) != string(config) || len(config) == 0 {
		t.Errorf("config: got %q, want %q", img.Config, config)
	}
	if len(img.Layers) != 2 || img.Layers[0].DiffID != sum || img.Layers[0].Digest() != digest.FromString("one") ||
		img.Layers[1].MediaType != ocispec.MediaTypeImageLayerZstd || img.Layers[1].Size() != 3 {
		t.Errorf("layers: got %+v", img.Layers)
	}
}

// A countingSource counts what is fetched.
type countingSource struct {
	remote.Source
	fetched []digest.Digest
}

func (s *countingSource) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Data != nil || desc.URLs != nil {
		return nil, errors.New("the descriptor leads elsewhere")
	}
	s.fetched = append(s.fetched, desc.Digest)
	return s.Source.Fetch(ctx, desc)
}

func TestOpenFetchesNoMore(t *testing.T) {
	store := sourcetest.NewStore()
	wanted := store.AddImage(oneLayer("linux/arm64"))
	top := store.AddIndex(store.AddImage(oneLayer("linux/amd64")), without(store.AddImage(oneLayer("linux/s390x"))), wanted, attestation(store))
	src := &countingSource{Source: store.Source("test", top)}
	img, err := remote.Open(t.Context(), src, "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{top.Digest, wanted.Digest, img.ConfigDescriptor.Digest}
	if !slices.Equal(src.fetched, want) {
		t.Errorf("fetched %s, want %s", src.fetched, want)
	}
}

func TestOpenBoundsFetches(t *testing.T) {
	testenv.Slow(t)
	store := sourcetest.NewStore()
	manifest := without(store.AddImage(oneLayer("linux/amd64")))
	src := &countingSource{Source: store.Source("test", store.AddIndex(slices.Repeat([]ocispec.Descriptor{manifest}, 10_000)...))}
	if _, err := remote.Open(t.Context(), src, "linux/arm64"); !errors.Is(err, remote.ErrUnsupported) {
		t.Errorf("got error %v, want %v", err, remote.ErrUnsupported)
	}
	if n := len(src.fetched); n > 200 {
		t.Errorf("fetched %d times", n)
	}
}

// A lyingSource serves what it is told to, without checking it.
type lyingSource struct {
	remote.Source
	content map[digest.Digest][]byte
}

func (s *lyingSource) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if c, ok := s.content[desc.Digest]; ok {
		return c, nil
	}
	return s.Source.Fetch(ctx, desc)
}

func TestOpenChecksContent(t *testing.T) {
	store := sourcetest.NewStore()
	top := store.AddImage(oneLayer("linux/amd64"))
	manifest, _ := store.Get(top.Digest)
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{top.Digest, m.Config.Digest} {
		right, _ := store.Get(d)
		other := slices.Clone(right)
		other[len(other)-1] = ' '
		for name, content := range map[string][]byte{"changed": other, "longer": append(slices.Clone(right), '\n'), "shorter": right[:len(right)-1], "empty": nil} {
			src := &lyingSource{store.Source("test", top), map[digest.Digest][]byte{d: content}}
			_, err := remote.Open(t.Context(), src, "")
			if !errors.Is(err, remote.ErrDigest) || !strings.Contains(err.Error(), d.String()) {
				t.Errorf("%s %s: got error %v, want %v that names the digest", d, name, err, remote.ErrDigest)
			}
		}
	}
}
