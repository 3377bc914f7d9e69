package soci

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is an image of one platform, and the ztocs of its layers.
type Source struct {
	// Manifest is the image's manifest, of OCI's or Docker's type.
	Manifest []byte
	Platform ocispec.Platform
	// Ztocs are the ztocs by the digests of the layers' blobs. A layer may have none.
	Ztocs map[digest.Digest][]byte
	// SpanSize is what the ztocs were built with, 0 for the default.
	SpanSize int64
	// Tool is what the SOCI index says that it was made by. Default: "imgfs".
	Tool string
}

// A Document is something to push: a blob or a manifest.
type Document struct {
	ocispec.Descriptor
	Data []byte
}

// A Converted is an image with a SOCI index. All its documents go into the repository
// that has the image's config and layers, blobs before manifests, in their order.
type Converted struct {
	// Blobs are the ztocs and the empty config of the SOCI indexes.
	Blobs []Document
	// Manifests are, of each source, the SOCI index and the image's manifest, and at
	// last the image index, which is what the image's tag is to name.
	Manifests []Document
}

// Convert makes of an image what "soci convert" makes (soci/soci_convert.go in the
// sources of soci-snapshotter): a SOCI index of version 2 for each platform, an annotation
// in the image's manifest that names it, and an image index with both. The image has
// other digests then, and the same config and layers. The error wraps ErrManifest if a
// manifest is none of an image or no layer has a ztoc.
func Convert(sources ...Source) (*Converted, error) {
	c := &Converted{Blobs: []Document{document(ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)}}
	var images, indexes []ocispec.Descriptor
	for _, s := range sources {
		image, index, err := c.add(&s)
		if err != nil {
			return nil, err
		}
		images, indexes = append(images, image), append(indexes, index)
	}
	top, err := jsonDocument(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append(images, indexes...),
	})
	if err != nil {
		return nil, err
	}
	c.Manifests = append(c.Manifests, top)
	return c, nil
}

// add adds the documents of one platform, and returns what the image index says of
// the image and of the SOCI index.
func (c *Converted) add(s *Source) (image, index ocispec.Descriptor, err error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(s.Manifest, &m); err != nil {
		return image, index, fmt.Errorf("%w: manifest of an image: %w", ErrManifest, err)
	}
	if len(m.Layers) == 0 || m.Config.Digest == "" {
		return image, index, fmt.Errorf("%w: manifest of an image without a config or layers", ErrManifest)
	}
	if s.SpanSize == 0 {
		s.SpanSize = DefaultSpanSize
	}
	if s.Tool == "" {
		s.Tool = defaultTool
	}
	doc, err := c.index(s, &m)
	if err != nil {
		return image, index, err
	}
	// Registries refuse an OCI manifest that names a config of Docker's type.
	m.MediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	m.Annotations = maps.Clone(m.Annotations)
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[AnnotationIndex] = doc.Digest.String()
	changed, err := jsonDocument(ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return image, index, err
	}
	c.Manifests = append(c.Manifests, doc, changed)
	image, index = changed.Descriptor, doc.Descriptor
	image.Platform, index.Platform = &s.Platform, &s.Platform
	image.Annotations = m.Annotations
	index.ArtifactType = ArtifactTypeV2
	index.Annotations = map[string]string{annotationImage: changed.Digest.String()}
	return image, index, nil
}

// index makes the SOCI index of an image, and adds its ztocs.
func (c *Converted) index(s *Source, m *ocispec.Manifest) (Document, error) {
	config := c.Blobs[0].Descriptor
	config.MediaType = ArtifactTypeV2
	index := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Annotations: map[string]string{annotationTool: s.Tool},
	}
	for _, layer := range m.Layers {
		data, ok := s.Ztocs[layer.Digest]
		if !ok {
			continue
		}
		z := document(mediaTypeZtoc, data)
		c.Blobs = append(c.Blobs, z)
		d := z.Descriptor
		d.Annotations = map[string]string{
			annotationLayer:     layer.Digest.String(),
			annotationLayerType: layer.MediaType,
			annotationSpanSize:  strconv.FormatInt(s.SpanSize, 10),
		}
		index.Layers = append(index.Layers, d)
	}
	if len(index.Layers) == 0 {
		return Document{}, fmt.Errorf("%w: no layer of the image has a ztoc", ErrManifest)
	}
	return jsonDocument(ocispec.MediaTypeImageManifest, index)
}

func document(mediaType string, data []byte) Document {
	return Document{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

func jsonDocument(mediaType string, v any) (Document, error) {
	data, err := json.Marshal(v)
	return document(mediaType, data), err
}
