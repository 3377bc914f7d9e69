package hostile

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is an OCI layout that is being written.
type Image struct {
	Manifest ocispec.Manifest
	Config   ocispec.Image
	dir      string
	top      ocispec.Descriptor // instead of the manifest, if it has a size
	err      error
}

// NewImage begins an OCI layout in a new directory.
func NewImage(dir string) *Image {
	m := &Image{dir: dir, err: os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"), 0o755)}
	m.Manifest = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = ocispec.Image{Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers"}}
	return m
}

// Gzip and Zstd add a layer with the entries that fill writes, and the small
// file at the end.
func (m *Image) Gzip(fill func(t *Tar)) { m.layer(ocispec.MediaTypeImageLayerGzip, newGzip, fill) }
func (m *Image) Zstd(fill func(t *Tar)) { m.layer(ocispec.MediaTypeImageLayerZstd, newZstd, fill) }

func newGzip(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

func newZstd(w io.Writer) io.WriteCloser {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4<<20))
	if err != nil {
		panic(err) // of constant options
	}
	return z
}

func (m *Image) layer(mediaType string, compress func(io.Writer) io.WriteCloser, fill func(t *Tar)) {
	diff := sha256.New()
	desc := m.blob(mediaType, func(w io.Writer) error {
		z := compress(w)
		t := &Tar{bufio.NewWriterSize(io.MultiWriter(z, diff), 1<<20)}
		fill(t)
		t.end()
		return errors.Join(t.w.Flush(), z.Close())
	})
	m.add(desc, digest.NewDigest(digest.SHA256, diff))
}

// Raw adds a layer whose blob is written by hand; tar writes what it decodes
// to.
func (m *Image) Raw(mediaType string, blob, tar func(w *bufio.Writer)) {
	desc := m.blob(mediaType, func(w io.Writer) error {
		b := bufio.NewWriterSize(w, 1<<20)
		blob(b)
		return b.Flush()
	})
	diff := sha256.New()
	b := bufio.NewWriterSize(diff, 1<<20)
	tar(b)
	m.fail(b.Flush())
	m.add(desc, digest.NewDigest(digest.SHA256, diff))
}

// add appends a layer.
func (m *Image) add(desc ocispec.Descriptor, diffID digest.Digest) {
	m.Manifest.Layers = append(m.Manifest.Layers, desc)
	m.Config.RootFS.DiffIDs = append(m.Config.RootFS.DiffIDs, diffID)
}

// Again appends layer i once more.
func (m *Image) Again(i int) { m.add(m.Manifest.Layers[i], m.Config.RootFS.DiffIDs[i]) }

// Write ends the layout, and returns the first error of all that was done.
func (m *Image) Write() error {
	m.Manifest.Config = m.json(ocispec.MediaTypeImageConfig, m.Config)
	top := m.json(ocispec.MediaTypeImageManifest, m.Manifest)
	if m.top.Size > 0 {
		top = m.top
	}
	m.file(ocispec.ImageIndexFile, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}})
	m.file(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	return m.err
}

func (m *Image) file(name string, v any) {
	data, err := json.Marshal(v)
	m.fail(err)
	m.fail(os.WriteFile(filepath.Join(m.dir, name), data, 0o644))
}

func (m *Image) json(mediaType string, v any) ocispec.Descriptor {
	return m.blob(mediaType, func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
}

func (m *Image) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

// blob stores what write writes under its digest.
func (m *Image) blob(mediaType string, write func(io.Writer) error) ocispec.Descriptor {
	blobs := filepath.Join(m.dir, ocispec.ImageBlobsDir, "sha256")
	f, err := os.CreateTemp(blobs, "new-")
	if m.fail(err); err != nil {
		return ocispec.Descriptor{}
	}
	c := &counter{file: bufio.NewWriterSize(f, 1<<20), sum: sha256.New()}
	m.fail(write(c))
	m.fail(errors.Join(c.file.Flush(), f.Close()))
	d := digest.NewDigest(digest.SHA256, c.sum)
	m.fail(os.Rename(f.Name(), filepath.Join(blobs, d.Encoded())))
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: c.n}
}

// A counter hashes and counts what goes to a file.
type counter struct {
	file *bufio.Writer
	sum  hash.Hash
	n    int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.file.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}
