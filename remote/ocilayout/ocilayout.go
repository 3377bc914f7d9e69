// Package ocilayout reads images from OCI image layouts: a directory
// (oci:DIR[:TAG]) or a tar file of one (oci-archive:FILE[:TAG]).
//
//	src, err := ocilayout.Open("/srv/layout", "v1")
//	img, err := remote.Open(ctx, src, "")
//
// Blobs are found by their digest alone, so no name in a layout leads
// outside of it, and are opened at their first read: a layout without some
// of its blobs serves the others. The specification is OCI's
// image-layout.md.
package ocilayout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/localblob"
)

// maxIndexSize is the largest index.json that is read.
const maxIndexSize = 8 << 20

// A Source is one image of a layout. It is safe for concurrent use.
type Source struct {
	location remote.Location
	files    files
}

var _ remote.Source = (*Source)(nil)

// files is where the layout's files are. The errors are remote.ErrNotFound
// and remote.ErrUnavailable, wrapped.
type files interface {
	// open opens a blob, once: it never changes.
	open(name string) (localblob.Content, error)
	// reopen opens any other file as it is now.
	reopen(name string) (closableContent, error)
	// explain is kindof.Explain.
	explain(loc remote.Location, err error) error
	io.Closer
}

type closableContent interface {
	localblob.Content
	io.Closer
}

// Open opens the layout in the directory dir. image is a tag, that is an
// org.opencontainers.image.ref.name of index.json; "@" and a digest; "@" and
// the number of an entry of index.json; or "" for the only image. Whether
// there is such an image is seen by Resolve. The errors are
// remote.ErrNotFound, ErrUnavailable and ErrUnsupported, wrapped. A
// *remote.KindError says what is there instead of a layout.
func Open(dir, image string) (*Source, error) {
	s := &Source{
		location: remote.Location{Transport: remote.TransportOCI, Path: dir, Image: image},
		files:    newDirectory(dir),
	}
	return s.checked()
}

// OpenArchive is Open for a layout in a tar file. A compressed one is
// unpacked to a temporary file without a name; opts say where, and how much that
// may be: more is remote.ErrTooBig.
func OpenArchive(ctx context.Context, file, image string, opts *remote.ArchiveOptions) (*Source, error) {
	s := &Source{location: remote.Location{Transport: remote.TransportOCIArchive, Path: file, Image: image}}
	a, err := newArchive(ctx, s.location, opts)
	if err != nil {
		return nil, s.fail(err)
	}
	s.files = a
	return s.checked()
}

// checked returns s, or closes it if it is no layout.
func (s *Source) checked() (*Source, error) {
	if err := s.check(); err != nil {
		s.files.Close()
		return nil, s.fail(err)
	}
	return s, nil
}

// check looks whether there is a layout, of a version that is known. As for
// skopeo the file oci-layout, which only states the version, may be absent.
func (s *Source) check() error {
	if _, err := s.read(ocispec.ImageIndexFile); err != nil {
		return s.files.explain(s.location, fmt.Errorf("not an OCI image layout: %w", err))
	}
	content, err := s.read(ocispec.ImageLayoutFile)
	if errors.Is(err, remote.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(content, &layout); err != nil {
		return fmt.Errorf("%w: %s: %w", remote.ErrUnsupported, ocispec.ImageLayoutFile, err)
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return fmt.Errorf("%w: version %q of OCI image layouts", remote.ErrUnsupported, layout.Version)
	}
	return nil
}

// read returns the content of a small file of the layout.
func (s *Source) read(name string) ([]byte, error) {
	content, err := s.files.reopen(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer content.Close()
	if n := content.Size(); n > maxIndexSize {
		return nil, fmt.Errorf("%w: %s has %d bytes; imgfs reads up to %d", remote.ErrUnsupported, name, n, maxIndexSize)
	}
	p := make([]byte, content.Size())
	if _, err := content.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w: %w", name, remote.ErrUnavailable, err)
	}
	return p, nil
}

// Name implements remote.Source: the location as the user writes it.
func (s *Source) Name() string { return s.location.String() }

// Repository implements remote.Source. A layout has none.
func (s *Source) Repository() string { return "" }

// Resolve implements remote.Source. It reads index.json each time. If the
// source was opened without an image and there are several, the error is
// remote.ErrReference and lists them.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	content, err := s.read(ocispec.ImageIndexFile)
	if err != nil {
		return ocispec.Descriptor{}, s.fail(err)
	}
	var index struct {
		Manifests entries `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil {
		return ocispec.Descriptor{}, s.fail(fmt.Errorf("%w: %s: %w", remote.ErrUnsupported, ocispec.ImageIndexFile, err))
	}
	desc, err := choose(index.Manifests, s.location.Image)
	if wanted, ok := strings.CutPrefix(s.location.Image, "@"); ok && errors.Is(err, remote.ErrNotFound) {
		// An image within an image index has no entry of its own.
		if b, e := s.openDigest(digest.Digest(wanted)); e == nil {
			return ocispec.Descriptor{Digest: digest.Digest(wanted), Size: b.Size()}, nil
		}
	}
	if err != nil {
		return ocispec.Descriptor{}, s.fail(err)
	}
	return desc, nil
}

// maxEntries is how many entries index.json may have. In memory each takes up to
// fifty times its JSON, and what describes an image has 130 bytes of that.
const maxEntries = 64 << 10

// entries are those of index.json.
type entries []ocispec.Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (e *entries) UnmarshalJSON(array []byte) error {
	*e = nil
	dec := json.NewDecoder(bytes.NewReader(array))
	switch start, err := dec.Token(); {
	case err != nil:
		return err
	case start == nil: // null
		return nil
	case start != json.Delim('['):
		return errors.New("its manifests are no JSON array")
	}
	for dec.More() {
		if len(*e) == maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		var desc ocispec.Descriptor
		if err := dec.Decode(&desc); err != nil {
			return err
		}
		*e = append(*e, desc)
	}
	return nil
}

// Fetch implements remote.Source.
func (s *Source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	b, err := localblob.New(s.Name(), desc, s.openDigest)
	if err != nil {
		return nil, err
	}
	return b.Fetch(ctx)
}

// Blob implements remote.Source.
func (s *Source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	b, err := localblob.New(s.Name(), desc, s.openDigest)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close closes the files that have been read. Blobs cannot be read any more.
func (s *Source) Close() error {
	return s.files.Close()
}

// openDigest opens the blob of a digest, which becomes part of a path only
// if it is valid.
func (s *Source) openDigest(d digest.Digest) (localblob.Content, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", remote.ErrReference, err)
	}
	return s.files.open(path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
}

func (s *Source) fail(err error) error {
	return fmt.Errorf("%s: %w", s.Name(), err)
}

// sentinel wraps an error of the file system in one of package remote's.
func sentinel(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", remote.ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
}
