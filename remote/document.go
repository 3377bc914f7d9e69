package remote

import (
	"context"
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Document is a part of an image as it lies in its source.
type Document struct {
	// Content is it byte for byte, checked against its digest.
	Content []byte
	// Warnings says what was not as described and did no harm; see Image.
	Warnings []string
}

// OpenDocument returns what the reference of src names, whatever it is: an image's
// manifest, an image index, the manifest of an artifact. No platform is chosen, and
// nothing is read that is not returned. Only if the reference means several entries
// of a catalog, those are looked at that may be no images; if the others are for
// several platforms, the catalog's own index is returned. Errors are those of Open.
func OpenDocument(ctx context.Context, src Source) (*Document, error) {
	o := newOpener(src)
	t, err := o.top(ctx)
	if err != nil {
		return nil, err
	}
	if t.several != nil {
		if same := o.alike(ctx, t); same != nil {
			return nil, t.ambiguous(same)
		}
		return &Document{Content: t.content}, nil
	}
	content, err := o.fetch(ctx, "manifest", &t.desc, maxManifestSize)
	if err != nil {
		return nil, err
	}
	return &Document{content, o.warned(t.desc.Digest)}, nil
}

// OpenConfig returns the config of what the reference of src names: an image's, or
// what an artifact has in its place. If that is an image index, platform chooses, as
// for Open, whose errors it returns.
func OpenConfig(ctx context.Context, src Source, platform string) (*Document, error) {
	o := newOpener(src)
	img, _, err := o.open(ctx, platform)
	if err != nil {
		return nil, err
	}
	var m struct {
		Config Described `json:"config"`
	}
	if err := json.Unmarshal(img.Manifest, &m); err != nil {
		return nil, o.fail("manifest "+img.Descriptor.Digest.String(), fmt.Errorf("%w: %w", ErrUnsupported, JSONError(err)))
	}
	desc := ocispec.Descriptor(m.Config)
	content, err := o.fetch(ctx, "config", &desc, maxConfigSize)
	if err != nil {
		return nil, err
	}
	return &Document{content, o.warned(img.Top.Digest, img.Descriptor.Digest, desc.Digest)}, nil
}
