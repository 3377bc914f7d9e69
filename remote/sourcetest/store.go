// Package sourcetest holds what tests of image sources share: a Store that
// builds images in memory, and Run, which every implementation of
// remote.Source must pass.
//
//	store := sourcetest.NewStore()
//	top := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: tar}}})
//	img, err := remote.Open(ctx, store.Source("example", top), "")
package sourcetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// A Store holds the content of images in memory, by digest. It is safe for
// concurrent use.
type Store struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
}

// NewStore returns an empty Store.
func NewStore() *Store {
	return &Store{blobs: make(map[digest.Digest][]byte)}
}

// Put adds content and describes it.
func (s *Store) Put(mediaType string, content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	s.Replace(desc.Digest, content)
	return desc
}

// PutJSON adds v as JSON.
func (s *Store) PutJSON(mediaType string, v any) ocispec.Descriptor {
	content, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sourcetest: %v", err))
	}
	return s.Put(mediaType, content)
}

// Replace stores content under d, which need not be its digest: a source
// that serves it is a bad one.
func (s *Store) Replace(d digest.Digest, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = slices.Clone(content)
}

// Delete removes the content stored under d.
func (s *Store) Delete(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
}

// Get returns the content stored under d. The caller must not change it.
func (s *Store) Get(d digest.Digest) (content []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok = s.blobs[d]
	return content, ok
}

// Digests returns the digests of all that is stored, sorted.
func (s *Store) Digests() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []digest.Digest
	for d := range s.blobs {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// A Layer is one layer of an Image to build.
type Layer struct {
	// Content is the blob.
	Content []byte
	// MediaType defaults to that of an uncompressed tar.
	MediaType string
	// DiffID defaults to the digest of Content, which is right only for an
	// uncompressed tar.
	DiffID digest.Digest
	// Annotations are those of its descriptor in the manifest.
	Annotations map[string]string
}

// An Image is what AddImage builds.
type Image struct {
	// Platform is that of the config, as in "linux/arm/v7". Default: the
	// host's.
	Platform string
	// Docker makes a Docker schema 2 manifest instead of an OCI one.
	Docker bool
	// Config holds members of the config that are added to, or replace, what
	// AddImage writes.
	Config map[string]any
	Layers []Layer
	// Annotations are those of the manifest.
	Annotations map[string]string
}

// Docker's media types.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
)

// AddImage adds layers, config and manifest, and describes the manifest,
// with its platform.
func (s *Store) AddImage(img Image) ocispec.Descriptor {
	p := platforms.DefaultSpec()
	if img.Platform != "" {
		p = platforms.MustParse(img.Platform)
	}
	manifestType, configType, layerType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer
	if img.Docker {
		manifestType, configType, layerType = DockerManifest, DockerConfig, DockerLayer
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Layers: []ocispec.Descriptor{}, Annotations: img.Annotations}
	diffIDs := []digest.Digest{}
	for _, l := range img.Layers {
		if l.MediaType == "" {
			l.MediaType = layerType
		}
		desc := s.Put(l.MediaType, l.Content)
		desc.Annotations = l.Annotations
		if l.DiffID == "" {
			l.DiffID = desc.Digest
		}
		m.Layers = append(m.Layers, desc)
		diffIDs = append(diffIDs, l.DiffID)
	}
	config := map[string]any{
		"architecture": p.Architecture,
		"os":           p.OS,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffIDs},
	}
	if p.Variant != "" {
		config["variant"] = p.Variant
	}
	if p.OSVersion != "" {
		config["os.version"] = p.OSVersion
	}
	for k, v := range img.Config {
		config[k] = v
	}
	m.Config = s.PutJSON(configType, config)
	desc := s.PutJSON(manifestType, m)
	desc.Platform = &p
	return desc
}

// AddIndex adds an OCI image index of entries, and describes it.
func (s *Store) AddIndex(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return s.PutJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: entries,
	})
}

// WriteLayout writes all that is stored to dir as an OCI image layout, whose
// index.json lists entries. A tag is the entry's annotation
// org.opencontainers.image.ref.name; see Tagged.
func (s *Store) WriteLayout(dir string, entries ...ocispec.Descriptor) error {
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: entries})
	if err != nil {
		return err
	}
	files := map[string][]byte{
		ocispec.ImageIndexFile:  index,
		ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`),
	}
	for _, d := range s.Digests() {
		content, _ := s.Get(d)
		files[filepath.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())] = content
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Tagged returns desc with the annotation that makes tag its name in an OCI
// image layout.
func Tagged(desc ocispec.Descriptor, tag string) ocispec.Descriptor {
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	return desc
}

// Source returns a remote.Source that serves the store's content, unchecked,
// and resolves to top.
func (s *Store) Source(name string, top ocispec.Descriptor) remote.Source {
	return &source{store: s, name: name, top: top}
}

// A source is the remote.Source of a Store.
type source struct {
	store *Store
	name  string
	top   ocispec.Descriptor
}

func (s *source) Name() string       { return s.name }
func (s *source) Repository() string { return "" }

func (s *source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, ok := s.store.Get(s.top.Digest); !ok {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", s.name, remote.ErrNotFound)
	}
	return s.top, nil
}

func (s *source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content, ok := s.store.Get(desc.Digest)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: blob %s: %w", s.name, desc.Digest, remote.ErrNotFound)
	case int64(len(content)) != desc.Size || desc.Digest.Validate() != nil || desc.Digest.Algorithm().FromBytes(content) != desc.Digest:
		return nil, fmt.Errorf("%s: blob %s: %w", s.name, desc.Digest, remote.ErrDigest)
	}
	return content, nil
}

func (s *source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	return &blob{source: s, desc: desc}, nil
}

// A blob is the remote.Blob of a Store.
type blob struct {
	source *source
	desc   ocispec.Descriptor
}

func (b *blob) Digest() digest.Digest { return b.desc.Digest }
func (b *blob) Size() int64           { return b.desc.Size }

func (b *blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	content, ok := b.source.store.Get(b.desc.Digest)
	switch {
	case !ok:
		return 0, fmt.Errorf("%s: blob %s: %w", b.source.name, b.desc.Digest, remote.ErrNotFound)
	case off < 0:
		return 0, fmt.Errorf("%s: blob %s: negative offset %d", b.source.name, b.desc.Digest, off)
	case int64(len(content)) != b.desc.Size:
		return 0, fmt.Errorf("%s: blob %s: %d bytes instead of %d: %w", b.source.name, b.desc.Digest, len(content), b.desc.Size, remote.ErrDigest)
	case off >= b.desc.Size:
		return 0, io.EOF
	}
	n := copy(p, content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
