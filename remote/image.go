package remote

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Layer is one layer of an image, with what manifest and config say of it.
type Layer struct {
	Blob
	MediaType string
	// DiffID is the digest of the uncompressed tar, from the config.
	DiffID      digest.Digest
	Annotations map[string]string
}

// An Image is a resolved manifest for one platform, with its config checked
// against it. It is immutable.
type Image struct {
	Source Source
	// Top describes what the reference names: an image index, or the
	// manifest itself. Raw is its content, byte for byte.
	Top ocispec.Descriptor
	Raw []byte
	// Descriptor describes the platform's manifest; Manifest is its content.
	Descriptor ocispec.Descriptor
	Manifest   []byte
	// ConfigDescriptor describes the config; Config is its content.
	ConfigDescriptor ocispec.Descriptor
	Config           []byte
	// Platform is what the config says the image is for.
	Platform ocispec.Platform
	// Layers holds the layers, the base first.
	Layers []Layer
}

// Open resolves src for one platform: image index (nested ones too) to
// manifest to config, each fetched by digest and checked against it, and
// each layer's media type looked at. No layer is read. What is fetched has at
// most 32 MiB altogether.
//
// platform is written as containerd does ("linux/arm/v7", "arm64"); empty
// means the host's. An image index is searched as containerd does, so arm/v7
// takes arm/v6 if there is no better, and ErrPlatform names the platforms
// that there are. A reference to a single manifest is taken for what it is,
// as docker and containerd take it, except when its config contradicts a
// platform that was asked for: that is ErrPlatform as well, where containerd
// goes on.
//
// Errors of src are returned as they are. Those of Open begin with
// src.Name() and wrap ErrDigest, ErrPlatform or ErrUnsupported. Content
// embedded in descriptors (data) is ignored.
func Open(ctx context.Context, src Source, platform string) (*Image, error) {
	o := &opener{src: src}
	want, err := parseWish(platform)
	if err != nil {
		return nil, o.fail("", err)
	}
	top, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	img := &Image{Source: src}
	var k kind
	if img.Raw, k, top.MediaType, err = o.document(ctx, top); err != nil {
		return nil, err
	}
	img.Top, img.Descriptor, img.Manifest = top, top, img.Raw
	if k == kindIndex {
		if err := o.openIndex(ctx, img, want); err != nil {
			return nil, err
		}
	}
	if err := o.openManifest(ctx, img); err != nil {
		return nil, err
	}
	p := img.Platform
	if k == kindManifest && want.asked && p.OS+p.Architecture != "" && !want.Match(p) {
		return nil, o.fail("", want.refuse([]ocispec.Platform{p}))
	}
	return img, nil
}

// An opener reads the parts of one image.
type opener struct {
	src  Source
	read int64 // bytes of all documents so far
}

// fail puts the image's name, and that of the part at fault, before err.
func (o *opener) fail(part string, err error) error {
	if part == "" {
		return fmt.Errorf("%s: %w", o.src.Name(), err)
	}
	return fmt.Errorf("%s: %s: %w", o.src.Name(), part, err)
}

// openIndex fills in the manifest of the image index in img.Raw that is for
// the platform wanted.
func (o *opener) openIndex(ctx context.Context, img *Image, want wish) error {
	desc, err := o.choose(ctx, img.Raw, want)
	if err != nil {
		return err
	}
	var k kind
	if img.Manifest, k, desc.MediaType, err = o.document(ctx, desc); err != nil {
		return err
	}
	if k != kindManifest {
		return o.fail("manifest "+desc.Digest.String(), fmt.Errorf("%w: it is an image index", ErrUnsupported))
	}
	img.Descriptor = desc
	return nil
}

// openManifest fills in the config and the layers of img.Manifest.
func (o *opener) openManifest(ctx context.Context, img *Image) error {
	part := "manifest " + img.Descriptor.Digest.String()
	m, err := parseManifest(img.Manifest)
	if err != nil {
		return o.fail(part, err)
	}
	img.ConfigDescriptor = m.Config
	if img.Config, err = o.fetch(ctx, "config", m.Config, maxConfigSize); err != nil {
		return err
	}
	c, err := parseConfig(img.Config)
	if err == nil {
		err = c.check(len(m.Layers))
	}
	if err != nil {
		return o.fail("config "+m.Config.Digest.String(), err)
	}
	img.Platform = c.platform()
	img.Layers = make([]Layer, len(m.Layers))
	for i, desc := range m.Layers {
		blob, err := o.blob(desc)
		if err != nil {
			return err
		}
		img.Layers[i] = Layer{Blob: blob, MediaType: desc.MediaType, DiffID: c.RootFS.DiffIDs[i], Annotations: desc.Annotations}
	}
	return nil
}

// blob returns the blob of a layer. One whose digest nobody can check is there
// but cannot be read.
func (o *opener) blob(desc ocispec.Descriptor) (Blob, error) {
	if err := desc.Digest.Validate(); err != nil {
		return unreadable{desc, o.fail("layer "+desc.Digest.String(), fmt.Errorf("%w: %w", ErrUnsupported, err))}, nil
	}
	return o.src.Blob(bare(desc))
}

// platformOf returns what the config of a manifest says it is for, nil if it
// is no image or does not say.
func (o *opener) platformOf(ctx context.Context, desc ocispec.Descriptor) (*ocispec.Platform, error) {
	content, k, _, err := o.document(ctx, desc)
	if err != nil {
		return nil, err
	}
	var m struct {
		Config ocispec.Descriptor `json:"config"`
	}
	if k != kindManifest || json.Unmarshal(content, &m) != nil || !isImageConfig(m.Config.MediaType) {
		return nil, nil
	}
	content, err = o.fetch(ctx, "config", m.Config, maxConfigSize)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(content)
	if err != nil || c.OS == "" || c.Architecture == "" {
		return nil, nil
	}
	p := c.platform()
	return &p, nil
}

// document fetches a manifest or image index, and says which it is and its
// media type.
func (o *opener) document(ctx context.Context, desc ocispec.Descriptor) ([]byte, kind, string, error) {
	content, err := o.fetch(ctx, "manifest", desc, maxManifestSize)
	if err != nil {
		return nil, 0, "", err
	}
	k, mediaType, err := classify(desc.MediaType, content)
	if err != nil {
		return nil, 0, "", o.fail("manifest "+desc.Digest.String(), err)
	}
	return content, k, mediaType, nil
}

// fetch returns the content of desc, which is at most limit long. It checks
// the digest although the source has done so: everything else rests on it.
func (o *opener) fetch(ctx context.Context, part string, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, o.fail(part, fmt.Errorf("%w: digest %s: %w", ErrUnsupported, quote(desc.Digest.String()), err))
	}
	part += " " + desc.Digest.String()
	if err := o.admit(desc.Size, limit); err != nil {
		return nil, o.fail(part, err)
	}
	content, err := o.src.Fetch(ctx, bare(desc))
	if err != nil {
		return nil, err
	}
	// Files go by their digest, and may have another size than is stated.
	if err := o.admit(int64(len(content)), limit); err != nil {
		return nil, o.fail(part, err)
	}
	o.read += int64(len(content))
	if got := desc.Digest.Algorithm().FromBytes(content); got != desc.Digest {
		return nil, o.fail(part, fmt.Errorf("%w: the content has %s", ErrDigest, got))
	}
	return content, nil
}

// admit tells whether a document of n bytes may be read, of which the kind may
// have limit.
func (o *opener) admit(n, limit int64) error {
	switch {
	case n < 0 || n > limit:
		return fmt.Errorf("%w: %d bytes; imgfs reads up to %d", ErrUnsupported, n, limit)
	case n > maxDocuments-o.read:
		return fmt.Errorf("%w: %d bytes, after %d of other manifests, image indexes and configs; imgfs reads up to %d of an image", ErrUnsupported, n, o.read, maxDocuments)
	}
	return nil
}

// bare returns of desc what a source needs to find the content: neither
// embedded content nor other places to get it from.
func bare(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}
