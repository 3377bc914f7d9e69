package remote

import (
	"context"
	"fmt"
	"slices"

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
	// Annotations are those of the platform's manifest; there may be none.
	Annotations map[string]string
	// ConfigDescriptor describes the config; Config is its content.
	ConfigDescriptor ocispec.Descriptor
	Config           []byte
	// Platform is what the config says the image is for.
	Platform ocispec.Platform
	// Layers holds the layers, the base first. There may be none.
	Layers []Layer
	// Warnings says, a sentence each and harmless to a terminal, what was not as
	// described and did no harm: what has the right digest and another size.
	Warnings []string
}

// Open resolves src for one platform: image index (nested ones too) to
// manifest to config, each fetched by digest and checked against it, and
// each layer's media type looked at. No layer is read. What is fetched has at
// most 32 MiB altogether.
//
// platform is written as containerd does ("linux/arm/v7", "arm64",
// "windows(10.0.20348)/amd64", "linux(+feature)/amd64"); empty means the host's.
// An image index is searched as containerd does, so arm/v7 takes arm/v6 if there
// is no better, and a *PlatformError names the platforms that there are. A version
// of the system fits those that begin with its components; features must be stated,
// and others must not be, except for win32k. What says nowhere what it is for is
// taken last, and if a platform is given only where nothing else says so. A
// reference to a single manifest is taken for what it is, as docker and containerd
// take it, except when its config contradicts a platform that was asked for: that is
// ErrPlatform as well, where containerd goes on.
//
// If src is a Catalog whose reference means several entries, those that are no
// images are passed over. Platforms choose among the others as among the entries
// of an image index. Several that are for one platform are an *AmbiguousError.
//
// Errors of src are returned as they are. Those of Open begin with
// src.Name() and wrap ErrDigest, ErrPlatform, ErrReference or ErrUnsupported.
// Content embedded in descriptors (data) is ignored.
func Open(ctx context.Context, src Source, platform string) (*Image, error) {
	o := newOpener(src)
	img, asked, err := o.open(ctx, platform)
	if err != nil {
		return nil, err
	}
	if err := o.openManifest(ctx, img); err != nil {
		return nil, err
	}
	p := img.Platform
	if asked != nil && p.OS+p.Architecture != "" && !asked.match(p) {
		return nil, o.fail("", asked.refuse([]ocispec.Platform{p}))
	}
	img.Warnings = o.warned(img.Top.Digest, img.Descriptor.Digest, img.ConfigDescriptor.Digest)
	for _, l := range img.Layers {
		img.Warnings = append(img.Warnings, o.warned(l.Digest())...)
	}
	return img, nil
}

// An opener reads the parts of one image.
type opener struct {
	src  Source
	read int64 // bytes of all documents so far
	// kept holds documents that may be needed again.
	kept map[digest.Digest][]byte
	// warnings holds what is to be said of what has not the size that is stated.
	warnings map[digest.Digest]string
	// resolved is what the source said that the reference names. What it said of
	// its size is nobody's statement in an image.
	resolved digest.Digest
}

func newOpener(src Source) *opener {
	return &opener{src: src, kept: make(map[digest.Digest][]byte), warnings: make(map[digest.Digest]string)}
}

// fail puts the image's name, and that of the part at fault, before err.
func (o *opener) fail(part string, err error) error {
	if part == "" {
		return fmt.Errorf("%s: %w", o.src.Name(), err)
	}
	return fmt.Errorf("%s: %s: %w", o.src.Name(), part, err)
}

// open finds the manifest for a platform. asked is not nil if the platform must be
// compared with the config's: the reference names a single manifest.
func (o *opener) open(ctx context.Context, platform string) (img *Image, asked *wish, err error) {
	want, err := parseWish(platform)
	if err != nil {
		return nil, nil, o.fail("", err)
	}
	t, err := o.top(ctx)
	if err != nil {
		return nil, nil, err
	}
	img = &Image{Source: o.src, Top: t.desc, Raw: t.content}
	desc, k := t.desc, kindIndex
	if t.several != nil {
		desc, err = o.chooseEntry(ctx, t, want)
	} else if img.Raw, k, img.Top.MediaType, err = o.document(ctx, &img.Top); err == nil && k == kindIndex {
		desc, err = o.choose(ctx, img.Raw, want)
	}
	if err != nil {
		return nil, nil, err
	}
	if k == kindManifest {
		img.Descriptor, img.Manifest = img.Top, img.Raw
		if want.asked && !slices.ContainsFunc(t.stated, want.match) {
			asked = &want
		}
		return img, asked, nil
	}
	for depth := 1; ; depth++ {
		stated := bareMediaType(desc.MediaType)
		if img.Manifest, k, desc.MediaType, err = o.document(ctx, &desc); err != nil {
			return nil, nil, err
		}
		if k != kindIndex || !sayNothing(stated) || depth > maxIndexDepth {
			break
		}
		if desc, err = o.choose(ctx, img.Manifest, want); err != nil {
			return nil, nil, err
		}
	}
	if k != kindManifest {
		return nil, nil, o.fail("manifest "+desc.Digest.String(), fmt.Errorf("%w: it is an image index", ErrUnsupported))
	}
	img.Descriptor = desc
	return img, nil, nil
}

// openManifest fills in the config and the layers of img.Manifest.
func (o *opener) openManifest(ctx context.Context, img *Image) error {
	part := "manifest " + img.Descriptor.Digest.String()
	m, err := parseManifest(img.Manifest)
	if err != nil {
		return o.fail(part, err)
	}
	img.Annotations = m.Annotations
	total := int64(0)
	for i, desc := range m.Layers {
		if desc.Size >= maxClaim {
			return o.fail(part, fmt.Errorf("%w: layer %s has size %d; imgfs reads images of up to %d bytes", ErrUnsupported, desc.Digest, desc.Size, int64(maxImageSize)))
		}
		if desc.Size < 0 || desc.Size > maxImageSize {
			desc = o.unsized(desc)
			m.Layers[i] = desc
		}
		size := o.size(desc)
		switch {
		case size < 0:
			return o.fail(part, fmt.Errorf("%w: layer %s has size %d", ErrUnsupported, desc.Digest, size))
		case size > maxImageSize-total:
			return o.fail(part, fmt.Errorf("%w: layer %s has size %d; imgfs reads images of up to %d bytes", ErrUnsupported, desc.Digest, size, int64(maxImageSize)))
		}
		total += size
	}
	if img.Config, err = o.fetch(ctx, "config", &m.Config, maxConfigSize); err != nil {
		return err
	}
	img.ConfigDescriptor = m.Config
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
		if blob.Digest() == desc.Digest {
			o.compare("layer", desc, blob.Size())
		}
		annotations := desc.Annotations
		if blob.Digest() != desc.Digest {
			annotations = nil // they are of other bytes
		}
		img.Layers[i] = Layer{Blob: blob, MediaType: desc.MediaType, DiffID: c.RootFS.DiffIDs[i], Annotations: annotations}
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

// size returns the size of what desc describes: the real one, if that is on this
// machine, and else the one that is stated.
func (o *opener) size(desc ocispec.Descriptor) int64 {
	if blob, err := o.src.Blob(bare(desc)); err == nil && IsLocal(blob) {
		return blob.Size()
	}
	return desc.Size
}

// unsized returns desc without its size, which nothing can have, if the source can
// do without.
func (o *opener) unsized(desc ocispec.Descriptor) ocispec.Descriptor {
	bare := bare(desc)
	bare.Size = 0
	if blob, err := o.src.Blob(bare); err == nil {
		if _, ok := blob.(SizedBlob); ok {
			desc.Size = 0
		}
	}
	return desc
}

// compare warns if what has the digest of desc has another size than desc states.
// The digest decides, so it does no harm.
func (o *opener) compare(part string, desc ocispec.Descriptor, size int64) {
	if desc.Size != size && desc.Digest != o.resolved {
		o.warnings[desc.Digest] = fmt.Sprintf("%s %s is said to have %d bytes and has %d; its digest decides", part, desc.Digest, desc.Size, size)
	}
}

// warned returns what is to be said of the parts with these digests, each once.
func (o *opener) warned(parts ...digest.Digest) []string {
	var warnings []string
	for _, d := range parts {
		if text, ok := o.warnings[d]; ok {
			warnings = append(warnings, text)
			delete(o.warnings, d)
		}
	}
	return warnings
}

// platformOf returns what the config of a manifest says it is for, nil if it
// is no image or does not say. silent is an image whose config says nothing of it.
func (o *opener) platformOf(ctx context.Context, manifest []byte) (p *ocispec.Platform, silent bool, err error) {
	m, err := readManifest(manifest)
	if err != nil || isArtifact(m) {
		return nil, false, nil
	}
	content, err := o.fetch(ctx, "config", &m.Config, maxConfigSize)
	if err != nil {
		return nil, false, err
	}
	c, err := parseConfig(content)
	if err != nil {
		return nil, false, nil
	}
	said := c.platform()
	if !says(said) {
		return nil, said.OS+said.Architecture == "", nil
	}
	return &said, false, nil
}

// document fetches a manifest or image index, and says which it is and its
// media type.
func (o *opener) document(ctx context.Context, desc *ocispec.Descriptor) ([]byte, kind, string, error) {
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

// fetch returns the content of desc, which is at most limit long, and corrects the
// size that desc states. It checks the digest although the source has done so:
// everything else rests on it.
func (o *opener) fetch(ctx context.Context, part string, desc *ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, o.fail(part, fmt.Errorf("%w: digest %s: %w", ErrUnsupported, quote(desc.Digest.String()), err))
	}
	if content, ok := o.kept[desc.Digest]; ok {
		desc.Size = int64(len(content))
		return content, nil
	}
	name := part + " " + desc.Digest.String()
	if err := o.admit(o.size(*desc), limit); err != nil {
		return nil, o.fail(name, err)
	}
	content, err := o.src.Fetch(ctx, bare(*desc))
	if err != nil {
		return nil, err
	}
	// Digests decide, and it may have another size than is stated.
	if err := o.admit(int64(len(content)), limit); err != nil {
		return nil, o.fail(name, err)
	}
	o.read += int64(len(content))
	if got := desc.Digest.Algorithm().FromBytes(content); got != desc.Digest {
		return nil, o.fail(name, fmt.Errorf("%w: the content has %s", ErrDigest, got))
	}
	o.compare(part, *desc, int64(len(content)))
	desc.Size = int64(len(content))
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
