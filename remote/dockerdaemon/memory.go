package dockerdaemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/localblob"
)

// A Memory keeps documents by their digests, and which one a name led to. *meta.Cache of
// package cache is one.
type Memory interface {
	Reference(name string) (ocispec.Descriptor, bool)
	KeepReference(name string, desc ocispec.Descriptor)
	// KeptMeta returns what has the digest, and nothing else.
	KeptMeta(d digest.Digest) ([]byte, bool)
	KeepMeta(d digest.Digest, content []byte)
}

// memoryName is that under which the manifest of an image is remembered.
func memoryName(id string) string {
	return remote.Location{Transport: remote.TransportDockerDaemon, Path: id}.String()
}

// remember keeps the documents of an image whose ID is the digest of its config, and
// whose layers are sent as the manifest has them. Nothing else can be checked before it
// is streamed.
func (s *Source) remember(ctx context.Context, memory Memory) {
	config, manifest, err := configOf(ctx, s.whole)
	if err != nil || config.String() != s.id {
		return
	}
	var m document
	if json.Unmarshal(manifest, &m) != nil {
		return
	}
	for _, l := range m.Layers {
		if b, err := s.whole.Blob(ocispec.Descriptor{Digest: l.Digest, Size: l.Size}); err != nil || b.Digest() != l.Digest {
			return
		}
	}
	content, err := s.whole.Fetch(ctx, ocispec.Descriptor{Digest: config, Size: m.Config.Size})
	if err != nil {
		return
	}
	memory.KeepMeta(config, content)
	memory.KeepMeta(s.top.Digest, manifest)
	memory.KeepReference(memoryName(s.id), s.top)
}

// remembered takes the documents of the image from a memory, and reports whether they are
// there and belong together: the config has the ID for its digest, and the manifest has
// its layers.
func (s *Source) remembered(memory Memory) bool {
	top, ok := memory.Reference(memoryName(s.id))
	if !ok {
		return false
	}
	manifest, ok := memory.KeptMeta(top.Digest)
	if !ok {
		return false
	}
	config, ok := memory.KeptMeta(digest.Digest(s.id))
	if !ok {
		return false
	}
	var m document
	var c struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if json.Unmarshal(manifest, &m) != nil || json.Unmarshal(config, &c) != nil || m.Config.Digest.String() != s.id ||
		!slices.EqualFunc(m.Layers, c.RootFS.DiffIDs, func(l descriptor, d digest.Digest) bool { return l.Digest == d }) {
		return false
	}
	s.top = top
	s.documents = map[digest.Digest][]byte{top.Digest: manifest, m.Config.Digest: config}
	return true
}

// Name implements remote.Source.
func (s *Source) Name() string { return s.location.String() }

// Repository implements remote.Source: that of the reference.
func (s *Source) Repository() string { return s.repository }

// Resolve implements remote.Source.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) { return s.top, ctx.Err() }

// Fetch implements remote.Source.
func (s *Source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if content, ok := s.documents[desc.Digest]; ok {
		return slices.Clone(content), ctx.Err()
	}
	if s.whole == nil {
		return nil, s.fail(fmt.Errorf("%w: %s", remote.ErrNotFound, desc.Digest))
	}
	return s.whole.Fetch(ctx, desc)
}

// Blob implements remote.Source.
func (s *Source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	if s.whole != nil {
		return s.whole.Blob(desc)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, s.fail(fmt.Errorf("%w: digest %q: %w", remote.ErrUnsupported, desc.Digest, err))
	}
	return &blob{s, desc}, nil
}

// Close ends what is being streamed, and closes what was. Blobs cannot be read any more.
func (s *Source) Close() error { return s.stream.close() }

// A blob is one that may not have been streamed yet.
type blob struct {
	source *Source
	desc   ocispec.Descriptor
}

var (
	_ remote.LocalBlob   = (*blob)(nil)
	_ localblob.FileBlob = (*blob)(nil)
)

// Digest implements remote.Blob.
func (b *blob) Digest() digest.Digest { return b.desc.Digest }

// Size implements remote.Blob.
func (b *blob) Size() int64 { return b.desc.Size }

// Local implements remote.LocalBlob: it will be.
func (b *blob) Local() bool { return true }

// File implements localblob.FileBlob, once the image was streamed.
func (b *blob) File() (*os.File, int64, error) {
	whole := b.source.stream.opened()
	if whole == nil {
		return nil, 0, b.source.fail(fmt.Errorf("%w: the image was not streamed yet", remote.ErrUnavailable))
	}
	own, err := whole.Blob(b.desc)
	if err != nil {
		return nil, 0, err
	}
	if own, ok := own.(localblob.FileBlob); ok {
		return own.File()
	}
	return nil, 0, b.source.fail(remote.ErrUnsupported)
}

// ReadAt implements remote.Blob.
func (b *blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	whole, err := b.source.stream.get(ctx)
	if err != nil {
		return 0, err
	}
	own, err := whole.Blob(b.desc)
	if err != nil {
		return 0, err
	}
	return own.ReadAt(ctx, p, off)
}
