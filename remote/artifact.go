package remote

import (
	"cmp"
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An ArtifactSource is a Source that knows what else lies beside its image: other
// tags, and artifacts that refer to a manifest. Nobody needs what it is asked for
// here in order to read the image, so its methods do not wait for long.
type ArtifactSource interface {
	Source
	// ResolveTag is Resolve for a tag in the same repository or layout. The errors
	// are ErrNotFound, ErrUnauthorized and ErrUnavailable, wrapped.
	ResolveTag(ctx context.Context, tag string) (ocispec.Descriptor, error)
	// Referrers describes the artifacts that say that they refer to the manifest
	// subject, up to MaxReferrers of them, each digest once: those of a type, or all
	// if artifactType is empty. Those whose type is not known without getting them
	// are among them. Whether the list is right is seen only by the Subject of each
	// artifact. There may be none, without an error; the errors are those of
	// ResolveTag, and seldom ErrNotFound.
	// OCI distribution-spec, "Listing Referrers".
	Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
}

// MaxReferrers is how many artifacts Referrers returns.
const MaxReferrers = 256

const (
	maxArtifactSize   = 4 << 20  // of a manifest
	maxArtifactLayers = 16 << 10 // an image's layers may have several each
)

// An Artifact is an image manifest that describes something else than an image,
// for example an index of an image's layers.
type Artifact struct {
	// Descriptor describes the manifest; Manifest is its content.
	Descriptor ocispec.Descriptor
	Manifest   []byte
	// Type is its artifactType or, if it states none, the media type of its config.
	Type   string
	Config ocispec.Descriptor
	// Layers describes the blobs, with their annotations and in the manifest's order.
	// Their digests are valid, and their sizes not negative. What they are nobody has
	// looked at.
	Layers      []ocispec.Descriptor
	Annotations map[string]string
	// Subject describes the manifest that the artifact refers to; nil if it refers to
	// none. There need not be such a manifest.
	Subject *ocispec.Descriptor
}

// OpenArtifact returns the artifact that desc describes, which has desc's digest.
// Registries and layouts need no more of desc than that: its media type may be empty
// and its size 0. No blob is read. A manifest of more than 4 MiB or 16,384 layers, an
// image index, and what is no manifest are refused.
//
// Errors of src are returned as they are. Those of OpenArtifact begin with
// src.Name() and wrap ErrDigest or ErrUnsupported. Embedded content is ignored.
func OpenArtifact(ctx context.Context, src Source, desc ocispec.Descriptor) (*Artifact, error) {
	o := newOpener(src)
	desc = bare(desc)
	if kindOf(bareMediaType(desc.MediaType)) == kindUnknown {
		// A registry has manifests elsewhere than what is none.
		desc.MediaType = ocispec.MediaTypeImageManifest
	}
	content, err := o.fetch(ctx, "manifest", &desc, maxArtifactSize)
	if err != nil {
		return nil, err
	}
	a, err := parseArtifact(&desc, content)
	if err != nil {
		return nil, o.fail("manifest "+desc.Digest.String(), err)
	}
	return a, nil
}

// parseArtifact reads the manifest that desc describes, and corrects its media type.
func parseArtifact(desc *ocispec.Descriptor, content []byte) (*Artifact, error) {
	k, mediaType, err := classify("", content)
	switch {
	case err != nil:
		return nil, err
	case k != kindManifest:
		return nil, fmt.Errorf("%w: it is an image index, and no artifact", ErrUnsupported)
	}
	desc.MediaType = mediaType
	m, err := readLayers(content, maxArtifactLayers)
	if err != nil {
		return nil, err
	}
	a := &Artifact{
		Descriptor:  *desc,
		Manifest:    content,
		Type:        cmp.Or(m.ArtifactType, m.Config.MediaType),
		Config:      described(m.Config),
		Annotations: m.Annotations,
	}
	if m.Subject != nil {
		subject := described(*m.Subject)
		a.Subject = &subject
	}
	for i, l := range m.Layers {
		if err := l.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: layer %d: digest %s: %w", ErrUnsupported, i, quote(l.Digest.String()), err)
		}
		if l.Size < 0 || l.Size >= maxClaim {
			return nil, fmt.Errorf("%w: layer %s has size %d", ErrUnsupported, l.Digest, l.Size)
		}
		a.Layers = append(a.Layers, described(l))
	}
	return a, nil
}

// described returns of desc what describes the content, without the content itself
// and other places to get it from.
func described(desc ocispec.Descriptor) ocispec.Descriptor {
	d := bare(desc)
	d.ArtifactType, d.Annotations = desc.ArtifactType, desc.Annotations
	return d
}
