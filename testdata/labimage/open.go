package labimage

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is the one image of an OCI layout on disk.
type Image struct {
	Layout string // its directory
	// Top is what index.json names: the manifest, or an image index with the manifest
	// and artifacts that belong to it.
	Top      ocispec.Descriptor
	Manifest ocispec.Manifest
	DiffIDs  []digest.Digest // of the layers
}

// Open reads the manifest and the config of a layout's image.
func Open(layout string) (*Image, error) {
	img := &Image{Layout: layout}
	var err error
	if img.Top, err = img.only(filepath.Join(layout, ocispec.ImageIndexFile)); err != nil {
		return nil, err
	}
	manifest := img.Top
	if manifest.MediaType == ocispec.MediaTypeImageIndex {
		if manifest, err = img.only(img.Blob(manifest.Digest)); err != nil {
			return nil, err
		}
	}
	if err := readJSON(img.Blob(manifest.Digest), &img.Manifest); err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := readJSON(img.Blob(img.Manifest.Config.Digest), &config); err != nil {
		return nil, err
	}
	img.DiffIDs = config.RootFS.DiffIDs
	if n := len(img.DiffIDs); n == 0 || n != len(img.Manifest.Layers) {
		return nil, fmt.Errorf("%s: an image of %d layers and %d diff IDs", layout, len(img.Manifest.Layers), n)
	}
	return img, nil
}

// only returns the one image that an image index in a file has.
func (img *Image) only(path string) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := readJSON(path, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	images := slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.ArtifactType != "" })
	if len(images) != 1 {
		return ocispec.Descriptor{}, fmt.Errorf("%s has %d images, want one", path, len(images))
	}
	return images[0], nil
}

// Blob returns the path of a blob.
func (img *Image) Blob(d digest.Digest) string {
	return filepath.Join(img.Layout, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Size returns the bytes of all layers, compressed.
func (img *Image) Size() int64 {
	var n int64
	for _, l := range img.Manifest.Layers {
		n += l.Size
	}
	return n
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
