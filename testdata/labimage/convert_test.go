package labimage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestConvert: the layers are those of the function, with what it says of them, and
// nothing else is left.
func TestConvert(t *testing.T) {
	img, err := WriteAs(t.TempDir(), FastGzip, Many(1, 50), Many(2, 60))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := 0
	got, err := img.Convert(dir, func(from, to string) (Converted, error) {
		n++
		b, err := os.ReadFile(from)
		if err != nil {
			return Converted{}, err
		}
		b = append(b, byte(n))
		return Converted{ocispec.MediaTypeImageLayerZstd, map[string]string{"n": string(rune('0' + n))}, digest.FromBytes(b)}, os.WriteFile(to, b, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range got.Manifest.Layers {
		if was := img.Manifest.Layers[i]; l.Size != was.Size+1 || l.MediaType != ocispec.MediaTypeImageLayerZstd ||
			l.Annotations["n"] != string(rune('1'+i)) || got.DiffIDs[i] != l.Digest {
			t.Errorf("layer %d: %+v with diff ID %s", i, l, got.DiffIDs[i])
		}
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	top, _ := os.ReadDir(dir)
	if err != nil || len(blobs) != 4 || len(top) != 3 {
		t.Errorf("%d blobs and %d files, want 4 and 3; %v", len(blobs), len(top), err)
	}
}

// TestOpenIndex: an image may have an index with artifacts beside it.
func TestOpenIndex(t *testing.T) {
	img, err := WriteAs(t.TempDir(), FastGzip, Many(1, 50))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(img.Blob(img.Top.Digest))
	if err != nil {
		t.Fatal(err)
	}
	describe := func(d ocispec.Descriptor) string {
		return `{"mediaType":"` + d.MediaType + `","digest":"` + d.Digest.String() + `","size":1,"artifactType":"` + d.ArtifactType + `"}`
	}
	other := img.Top
	other.ArtifactType = "x/y"
	for list, ok := range map[string]bool{
		describe(img.Top):                           true,
		describe(other) + "," + describe(img.Top):   true,
		describe(other):                             false,
		describe(img.Top) + "," + describe(img.Top): false,
	} {
		index := []byte(`{"manifests":[` + list + `]}`)
		top := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(index), Size: int64(len(index))}
		got, err := img.With(t.TempDir(), top, manifest, index)
		if (err == nil) != ok {
			t.Errorf("%s: error %v", list, err)
		}
		if ok && err == nil && (got.Top.Digest != top.Digest || len(got.Manifest.Layers) != 1 || got.Manifest.Layers[0].Digest != img.Manifest.Layers[0].Digest) {
			t.Errorf("%s: got %+v", list, got)
		}
	}
}
