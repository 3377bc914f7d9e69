package registrytest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushLayout serves the content of an OCI layout directory in a repository, with
// the tags that its index.json gives by annotation. Blobs are served from
// their files, which must stay.
// OCI image-spec, image-layout.md.
func (s *Server) PushLayout(dir, repository string) error {
	data, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, ocispec.ImageIndexFile), err)
	}
	files, err := filepath.Glob(filepath.Join(dir, ocispec.ImageBlobsDir, "*", "*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		algorithm := filepath.Base(filepath.Dir(path))
		s.PutBlobFile(digest.NewDigestFromEncoded(digest.Algorithm(algorithm), filepath.Base(path)), path)
	}
	for _, desc := range index.Manifests {
		if err := s.pushManifest(dir, desc); err != nil {
			return err
		}
		if tag := desc.Annotations[ocispec.AnnotationRefName]; tag != "" {
			s.Tag(repository, tag, desc.Digest)
		}
	}
	return nil
}

// pushManifest serves a manifest of a layout, and those below an image index.
func (s *Server) pushManifest(dir string, desc ocispec.Descriptor) error {
	path := filepath.Join(dir, ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.ReplaceManifest(desc.Digest, desc.MediaType, data)
	if desc.MediaType != ocispec.MediaTypeImageIndex && !strings.HasSuffix(desc.MediaType, "manifest.list.v2+json") {
		return nil
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, child := range index.Manifests {
		if err := s.pushManifest(dir, child); err != nil {
			return err
		}
	}
	return nil
}
