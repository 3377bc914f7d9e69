// Package dockerarchive reads images from files that docker save writes, and
// jib, bazel, kaniko and nix: docker-archive:FILE[:REF].
//
//	src, err := dockerarchive.Open(ctx, "image.tar", "alpine:3.10", nil)
//	img, err := remote.Open(ctx, src, "")
//
// Such a file has a manifest.json, which lists config and layers by the
// names of their members, but no manifest as a registry has. The source
// makes one, byte for byte what skopeo makes, so that the image has the same
// digest for both: a Docker schema 2 manifest whose layers are the
// uncompressed tars, with the diff_id as digest and a media type that says
// gzip nevertheless. Readers of layers go by the first bytes anyway.
//
// A layer whose member is compressed is the one case in which a blob is not
// what the manifest describes. The blob is then the member as it is, with
// the member's own digest and size, so that verifying the blob succeeds;
// the layer's diff_id is that of the manifest. To find digest and size, Open
// reads such members once.
package dockerarchive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/kindof"
	"github.com/imgfs/imgfs/remote/internal/localblob"
	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// The largest manifest.json and config that are read.
const (
	maxManifestSize = 8 << 20
	maxConfigSize   = 16 << 20
)

// A Source is one image of an archive. It is immutable and safe for
// concurrent use.
type Source struct {
	location   remote.Location
	repository string
	archive    *tarball.Archive
	top        ocispec.Descriptor
	// contents holds manifest, config and layers.
	contents map[digest.Digest]localblob.Content
	// packed holds for the diff_id of a compressed layer what its member is.
	packed map[digest.Digest]ocispec.Descriptor
	// wanted is the platform that chooses among several images.
	wanted string
	// maxLayer bounds the tar of a compressed layer; 0 is no bound.
	maxLayer int64
}

var _ remote.Source = (*Source)(nil)

// Open opens the archive in file and finds the image that ref names: a
// reference with a tag as docker writes it ("alpine:3.10") or, if there is none such,
// what is short for one (see remote.IsShortFor), "@" and the
// number of an image in manifest.json, or "" for all. Of several the one is taken
// that is for opts.Platform; two such are a *remote.AmbiguousError. A compressed
// file is unpacked to a temporary file without a name; opts say where, and how
// much that may be. Compressed layers are read once.
//
// The errors are remote.ErrNotFound, ErrReference, ErrUnavailable,
// ErrUnsupported, ErrTooBig and ErrDigest, wrapped. A *remote.KindError says what
// the file is instead of such an archive.
func Open(ctx context.Context, file, ref string, opts *remote.ArchiveOptions) (*Source, error) {
	if opts == nil {
		opts = &remote.ArchiveOptions{}
	}
	s := newSource(remote.Location{Transport: remote.TransportDockerArchive, Path: file, Image: ref}, opts)
	selected, err := parseSelector(ref)
	if err != nil {
		if opts.From != nil {
			opts.From.Close()
		}
		return nil, s.fail(err)
	}
	if s.archive, err = kindof.Open(ctx, s.location, opts); err != nil {
		return nil, s.fail(err)
	}
	return s.loaded(ctx, selected)
}

// OpenTar is Open for an archive that has been opened, and is closed with the source,
// also if that cannot be opened. Errors name loc, whose Image is ref of Open if the
// transport has that.
func OpenTar(ctx context.Context, a *tarball.Archive, loc remote.Location, opts *remote.ArchiveOptions) (*Source, error) {
	s := newSource(loc, opts)
	s.archive = a
	selected, err := parseSelector(loc.Image)
	if err != nil {
		a.Close()
		return nil, s.fail(err)
	}
	return s.loaded(ctx, selected)
}

func newSource(loc remote.Location, opts *remote.ArchiveOptions) *Source {
	return &Source{
		location: loc,
		contents: make(map[digest.Digest]localblob.Content),
		packed:   make(map[digest.Digest]ocispec.Descriptor),
		wanted:   opts.Platform,
		maxLayer: opts.Limit(),
	}
}

// loaded returns s with its image, or closes it.
func (s *Source) loaded(ctx context.Context, selected selector) (*Source, error) {
	if err := s.load(ctx, selected); err != nil {
		s.archive.Close()
		return nil, s.fail(err)
	}
	return s, nil
}

// load finds the image and makes its manifest.
func (s *Source) load(ctx context.Context, selected selector) error {
	content, err := s.read("manifest.json", maxManifestSize)
	if errors.Is(err, remote.ErrNotFound) {
		err = fmt.Errorf("%w: there is no manifest.json, as docker save writes it", remote.ErrUnsupported)
		return kindof.ExplainArchive(s.location, s.archive, err)
	}
	if err != nil {
		return err
	}
	var images []image
	// Keys match in any case: jib writes them in lower case.
	if err := json.Unmarshal(content, &images); err != nil {
		if errors.As(err, new(*json.UnmarshalTypeError)) {
			err = errors.New("it is no list of images, as docker save writes it")
		}
		return kindof.ExplainArchive(s.location, s.archive, fmt.Errorf("%w: manifest.json: %w", remote.ErrUnsupported, err))
	}
	chosen, repository, err := selected.choose(images)
	s.repository = repository
	if errors.Is(err, errSeveral) {
		return ambiguous(s.location, chosen)
	}
	if err != nil {
		return err
	}
	img, err := s.platform(chosen)
	if err != nil {
		return err
	}
	return s.build(ctx, img)
}

// platform returns the only image, or, of several that have the same name, or that no
// name was given of, the one whose config says the platform that is wanted.
func (s *Source) platform(images []image) (image, error) {
	if len(images) == 1 {
		return images[0], nil
	}
	if len(images) > maxConfigs {
		return image{}, ambiguous(s.location, images)
	}
	there := make([]ocispec.Platform, len(images))
	for i, img := range images {
		// A config that cannot be read states nothing.
		if content, err := s.read(img.Config, maxConfigSize); err == nil {
			_ = json.Unmarshal(content, &there[i])
		}
	}
	best, err := remote.BestPlatform(s.wanted, there)
	if err != nil {
		return image{}, err
	}
	if len(best) > 1 {
		for i, at := range best {
			images[i] = images[at]
		}
		return image{}, ambiguous(s.location, images[:len(best)])
	}
	return images[best[0]], nil
}

// read returns the content of a small member.
func (s *Source) read(name string, limit int64) ([]byte, error) {
	r, err := s.member(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > limit {
		return nil, fmt.Errorf("%w: %q has %d bytes; imgfs reads up to %d", remote.ErrUnsupported, name, r.Size(), limit)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", remote.ErrUnavailable, name, err)
	}
	return content, nil
}

// member returns a member of the archive. The errors are remote.ErrNotFound and
// ErrTooBig, wrapped.
func (s *Source) member(name string) (*io.SectionReader, error) {
	r, err := s.archive.Member(name)
	if err != nil && !errors.Is(err, remote.ErrTooBig) {
		err = fmt.Errorf("%w: %w", remote.ErrNotFound, err)
	}
	return r, err
}

// add makes content fetchable, and describes it.
func (s *Source) add(mediaType string, content []byte) descriptor {
	d := digest.FromBytes(content)
	s.contents[d] = bytes.NewReader(content)
	return descriptor{MediaType: mediaType, Size: int64(len(content)), Digest: d}
}

// Name implements remote.Source: the location as the user writes it.
func (s *Source) Name() string { return s.location.String() }

// Repository implements remote.Source: as for skopeo that of the reference,
// if Open was given one.
func (s *Source) Repository() string { return s.repository }

// Resolve implements remote.Source.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	return s.top, ctx.Err()
}

// Fetch implements remote.Source.
func (s *Source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	b, err := localblob.New(s.Name(), desc, s.content)
	if err != nil {
		return nil, err
	}
	return b.Fetch(ctx)
}

// Blob implements remote.Source. For a layer whose member is compressed, the
// blob is the member, with its digest and size.
func (s *Source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	if packed, ok := s.packed[desc.Digest]; ok {
		desc = packed
	}
	b, err := localblob.New(s.Name(), desc, s.content)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close closes the archive. Blobs cannot be read any more.
func (s *Source) Close() error {
	return s.archive.Close()
}

func (s *Source) content(d digest.Digest) (localblob.Content, error) {
	if c, ok := s.contents[d]; ok {
		return c, nil
	}
	return nil, remote.ErrNotFound
}

func (s *Source) fail(err error) error {
	return fmt.Errorf("%s: %w", s.Name(), err)
}
