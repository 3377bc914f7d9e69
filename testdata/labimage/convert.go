package labimage

import (
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Converted is what has to be known of a layer that was converted.
type Converted struct {
	MediaType   string
	Annotations map[string]string
	DiffID      digest.Digest
}

// Convert makes dir a layout of the same image with converted layers, and opens it. It
// calls convert with the paths of each layer and of a file to write.
func (img *Image) Convert(dir string, convert func(from, to string) (Converted, error)) (*Image, error) {
	if err := makeBlobs(dir); err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := readJSON(img.Blob(img.Manifest.Config.Digest), &config); err != nil {
		return nil, err
	}
	manifest := img.Manifest
	manifest.Layers, config.RootFS.DiffIDs = nil, nil
	to := filepath.Join(dir, "converted")
	defer os.Remove(to)
	for _, l := range img.Manifest.Layers {
		c, err := convert(img.Blob(l.Digest), to)
		if err != nil {
			return nil, err
		}
		desc, err := writeBlob(dir, c.MediaType, func(w io.Writer) error { return copyFile(w, to) })
		if err != nil {
			return nil, err
		}
		desc.Annotations = c.Annotations
		manifest.Layers = append(manifest.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, c.DiffID)
	}
	var err error
	if manifest.Config, err = writeJSON(dir, ocispec.MediaTypeImageConfig, config); err != nil {
		return nil, err
	}
	if _, err := writeManifest(dir, manifest); err != nil {
		return nil, err
	}
	return Open(dir)
}

// With makes dir a layout of the same config and layers with other documents, and opens
// it. The image's tag names the document top.
func (img *Image) With(dir string, top ocispec.Descriptor, documents ...[]byte) (*Image, error) {
	if err := makeBlobs(dir); err != nil {
		return nil, err
	}
	for _, d := range append([]ocispec.Descriptor{img.Manifest.Config}, img.Manifest.Layers...) {
		if _, err := writeBlob(dir, d.MediaType, func(w io.Writer) error { return copyFile(w, img.Blob(d.Digest)) }); err != nil {
			return nil, err
		}
	}
	for _, doc := range documents {
		_, err := writeBlob(dir, "", func(w io.Writer) error {
			_, err := w.Write(doc)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	top.Annotations = map[string]string{ocispec.AnnotationRefName: Tag}
	if err := writeTop(dir, top); err != nil {
		return nil, err
	}
	return Open(dir)
}
