package soci

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What SOCI calls its documents (soci/soci_index.go in the sources of
// soci-snapshotter).
const (
	// ArtifactTypeV1 and ArtifactTypeV2 are the media types of a SOCI index's config,
	// and stand as its artifact type where a descriptor names it.
	ArtifactTypeV1 = "application/vnd.amazon.soci.index.v1+json"
	ArtifactTypeV2 = "application/vnd.amazon.soci.index.v2+json"

	// AnnotationIndex is the annotation of an image's manifest that names the digest
	// of its SOCI index of version 2.
	AnnotationIndex = "com.amazon.soci.index-digest"

	mediaTypeZtoc     = "application/octet-stream"
	mediaTypePrefetch = "application/vnd.amazon.soci.prefetch.v1+json"

	annotationLayer     = "com.amazon.soci.image-layer-digest"
	annotationLayerType = "com.amazon.soci.image-layer-mediaType"
	annotationSpanSize  = "com.amazon.soci.span-size"
	annotationTool      = "com.amazon.soci.build-tool-identifier"
	annotationImage     = "com.amazon.soci.image-manifest-digest"
)

const (
	// maxManifest is the size of the largest index manifest or prefetch document that
	// is read.
	maxManifest = 4 << 20
	// prefetchVersion is the only version of prefetch documents that there is.
	prefetchVersion = "1.0"
	maxRanges       = 1 << 12
)

// ErrManifest says that a document is no SOCI index, or no list of spans to fetch
// first, or contradicts itself. It comes wrapped.
var ErrManifest = errors.New("not a SOCI document")

// A Manifest is what the manifest of a SOCI index says.
type Manifest struct {
	// Version is 1 or 2.
	Version int
	// Subject is the manifest of the image. Only version 1 has it.
	Subject *ocispec.Descriptor
	// Layers are the files of the image's layers by the digests of their blobs. A
	// layer may be missing.
	Layers map[digest.Digest]Files
}

// Files are what a SOCI index has of one layer.
type Files struct {
	Ztoc ocispec.Descriptor
	// Prefetch is the document for ParsePrefetch, nil for none.
	Prefetch *ocispec.Descriptor
}

// ParseIndex reads the manifest of a SOCI index, of either version. Nothing in it says
// that the index is right: one of version 2 is as good as the image's manifest if that
// has its digest (AnnotationIndex), and nothing vouches for one of version 1. The error
// wraps ErrManifest.
func ParseIndex(manifest []byte) (*Manifest, error) {
	if len(manifest) > maxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes", ErrManifest, len(manifest))
	}
	var doc ocispec.Manifest
	if err := json.Unmarshal(manifest, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	m := &Manifest{Layers: map[digest.Digest]Files{}}
	switch doc.Config.MediaType {
	case ArtifactTypeV1:
		m.Version, m.Subject = 1, doc.Subject
	case ArtifactTypeV2:
		m.Version = 2
	default:
		return nil, fmt.Errorf("%w: config of type %.100q", ErrManifest, doc.Config.MediaType)
	}
	for _, d := range doc.Layers {
		if err := m.add(d); err != nil {
			return nil, err
		}
	}
	for layer, f := range m.Layers {
		if f.Ztoc.Digest == "" {
			delete(m.Layers, layer) // spans of a ztoc that is not there
		}
	}
	return m, nil
}

// add adds a file of an index. Of several of a kind for a layer, as an image has them
// that has the layer twice, the first counts.
func (m *Manifest) add(d ocispec.Descriptor) error {
	limit := int64(MaxZtoc)
	switch d.MediaType {
	case mediaTypeZtoc:
	case mediaTypePrefetch:
		limit = maxManifest
	default:
		return nil // of a later version
	}
	layer := digest.Digest(d.Annotations[annotationLayer])
	if layer == "" || d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 || d.Size < 0 || d.Size > limit {
		return fmt.Errorf("%w: file %.100q of %d bytes for layer %.100q", ErrManifest, d.Digest, d.Size, layer)
	}
	f := m.Layers[layer]
	switch {
	case d.MediaType == mediaTypeZtoc && f.Ztoc.Digest == "":
		f.Ztoc = d
	case d.MediaType == mediaTypePrefetch && f.Prefetch == nil:
		f.Prefetch = &d
	}
	m.Layers[layer] = f
	return nil
}

// A SpanRange is a run of spans of a ztoc, by number from 0: First to Last.
type SpanRange struct {
	First, Last int
}

// ParsePrefetch reads the document that says which spans of a layer to fetch first
// (soci/prefetch.go in the sources of soci-snapshotter). The error wraps ErrManifest.
func ParsePrefetch(doc []byte) ([]SpanRange, error) {
	if len(doc) > maxManifest {
		return nil, fmt.Errorf("%w: prefetch document of %d bytes", ErrManifest, len(doc))
	}
	var v struct {
		Version string `json:"version"`
		Spans   []struct {
			First int32 `json:"start_span"`
			Last  int32 `json:"end_span"`
		} `json:"prefetch_spans"`
	}
	if err := json.Unmarshal(doc, &v); err != nil {
		return nil, fmt.Errorf("%w: prefetch document: %w", ErrManifest, err)
	}
	if v.Version != prefetchVersion || len(v.Spans) > maxRanges {
		return nil, fmt.Errorf("%w: prefetch document of version %.20q with %d ranges", ErrManifest, v.Version, len(v.Spans))
	}
	list := make([]SpanRange, len(v.Spans))
	for i, s := range v.Spans {
		if s.First < 0 || s.Last < s.First {
			return nil, fmt.Errorf("%w: spans %d to %d to fetch first", ErrManifest, s.First, s.Last)
		}
		list[i] = SpanRange{int(s.First), int(s.Last)}
	}
	return list, nil
}
