// Package labimage makes container images to try imgfs with, from what every
// machine with Go has: OCI layouts on disk, with the same digests wherever
// the same Go release makes them.
//
// It is for tests and demonstrations. The go command leaves it out of ./...
// because of its place; it has to be named.
package labimage

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tag is the tag that images have in their layouts.
const Tag = "latest"

// epoch is the time of all that has no other.
var epoch = time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)

// A Layer writes the entries of one layer.
type Layer func(a *Archive) error

// Write makes dir, which may exist, an OCI layout of one image for the
// machine's platform, with gzip layers, the base first, and returns what
// index.json says of it. An image that was there before is no longer listed.
func Write(dir string, layers ...Layer) (ocispec.Descriptor, error) {
	return write(dir, defaultGzip, nil, layers)
}

// WriteAs makes dir such a layout with layers in another compression, and
// opens it.
func WriteAs(dir string, c Compression, layers ...Layer) (*Image, error) {
	if _, err := write(dir, c, nil, layers); err != nil {
		return nil, err
	}
	return Open(dir)
}

func write(dir string, c Compression, change func(*ocispec.Image), layers []Layer) (ocispec.Descriptor, error) {
	if err := makeBlobs(dir); err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest := newManifest()
	config := newConfig()
	for _, l := range layers {
		desc, diffID, err := writeLayer(dir, c, l)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		manifest.Layers = append(manifest.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ocispec.History{Created: &epoch, CreatedBy: "labimage"})
	}
	if change != nil {
		change(&config)
	}
	var err error
	if manifest.Config, err = writeJSON(dir, ocispec.MediaTypeImageConfig, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	return writeManifest(dir, manifest)
}

// makeBlobs makes the directory of a layout's blobs.
func makeBlobs(dir string) error {
	return os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"), 0o755)
}

func newManifest() ocispec.Manifest {
	return ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
}

// writeManifest makes a layout's image the one of a manifest.
func writeManifest(dir string, manifest ocispec.Manifest) (ocispec.Descriptor, error) {
	desc, err := writeJSON(dir, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: Tag}
	return desc, writeTop(dir, desc)
}

func newConfig() ocispec.Image {
	return ocispec.Image{
		Created:  &epoch,
		Author:   "labimage",
		Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config: ocispec.ImageConfig{
			Env:        []string{"PATH=/usr/local/go/bin:/usr/bin:/bin", "LANG=C.UTF-8"},
			Cmd:        []string{"/bin/sh"},
			WorkingDir: "/usr/local/go",
			Labels:     map[string]string{ocispec.AnnotationTitle: "lab image"},
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
}

// writeTop writes the files at the top of a layout.
func writeTop(dir string, image ocispec.Descriptor) error {
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{image},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), index, 0o644); err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), layout, 0o644)
}

func writeJSON(dir, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return writeBlob(dir, mediaType, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	})
}

// writeLayer writes a layer's blob and returns its diff ID as well.
func writeLayer(dir string, c Compression, l Layer) (ocispec.Descriptor, digest.Digest, error) {
	diff := sha256.New()
	desc, err := c.write(dir, func(z io.Writer) error {
		buf := bufio.NewWriterSize(io.MultiWriter(z, diff), 256<<10)
		a := newArchive(buf)
		return cmp.Or(l(a), a.Close(), buf.Flush())
	})
	return desc, digest.NewDigest(digest.SHA256, diff), err
}

// A counter hashes and counts what is written to a file.
type counter struct {
	io.Writer
	hash hash.Hash
	n    int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	return n, err
}

// writeBlob puts what write writes into the layout, under its digest.
func writeBlob(dir, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir, "sha256")
	f, err := os.CreateTemp(blobs, "blob-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	defer f.Close()
	c := &counter{Writer: f, hash: sha256.New()}
	if err := write(c); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := f.Chmod(0o644); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := f.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.NewDigest(digest.SHA256, c.hash)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: c.n}
	return desc, os.Rename(f.Name(), filepath.Join(blobs, d.Encoded()))
}
