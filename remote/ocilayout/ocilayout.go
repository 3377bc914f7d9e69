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
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/kindof"
	"github.com/imgfs/imgfs/remote/internal/localblob"
	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// maxIndexSize is the largest index.json that is read.
const maxIndexSize = 8 << 20

// A Source is one image of a layout. It is safe for concurrent use.
type Source struct {
	location remote.Location
	files    files
	// index is the last one that was read.
	index atomic.Pointer[remote.Candidates]
}

var (
	_ remote.Catalog        = (*Source)(nil)
	_ remote.ArtifactSource = (*Source)(nil)
)

// files is where the layout's files are. The errors are remote.ErrNotFound
// and remote.ErrUnavailable, wrapped.
type files interface {
	// open opens a blob, once: it never changes.
	open(name string) (localblob.Content, error)
	// size returns the size of a blob, and leaves nothing open.
	size(name string) (int64, error)
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

// Open opens the layout in the directory dir. image is a name that index.json has,
// as org.opencontainers.image.ref.name (often a tag) or io.containerd.image.name;
// if there is none such, what is short for one of them: "beta" or "library/beta" for
// docker.io/library/beta:latest, the end of a path, a tag alone. "@" and a digest
// is the image of that digest, of an image index in the layout too; "@" and a number
// an entry of index.json; "" all entries. Whether there is such an image is seen by
// Resolve; which one it is of several, by remote.Open. The errors are
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
	if opts == nil {
		opts = &remote.ArchiveOptions{}
	}
	s := &Source{location: remote.Location{Transport: remote.TransportOCIArchive, Path: file, Image: image}}
	a, err := kindof.Open(ctx, s.location, opts)
	if err != nil {
		return nil, s.fail(err)
	}
	return OpenTar(a, s.location)
}

// OpenTar is OpenArchive for an archive that has been opened, and is closed with the
// source, also if that cannot be opened.
func OpenTar(a *tarball.Archive, loc remote.Location) (*Source, error) {
	s := &Source{location: loc, files: archive{a}}
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
		return fmt.Errorf("%w: %s: %w", remote.ErrUnsupported, ocispec.ImageLayoutFile, remote.JSONError(err))
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

// Resolve implements remote.Source. It reads index.json each time. If the source's
// image means several entries, index.json itself is returned.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	c, err := s.Candidates(ctx)
	switch {
	case err != nil:
		return ocispec.Descriptor{}, err
	case len(c.Entries) > 1:
		return c.Index, nil
	}
	return c.Entries[0].Descriptor, nil
}

// Candidates implements remote.Catalog. It reads index.json each time.
func (s *Source) Candidates(ctx context.Context) (*remote.Candidates, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content, all, err := s.readIndex()
	if err != nil {
		return nil, s.fail(err)
	}
	chosen, full, err := choose(all, s.location.Image)
	if wanted, ok := strings.CutPrefix(s.location.Image, "@"); ok && errors.Is(err, remote.ErrNotFound) {
		// An image within an image index has no entry of its own.
		if size, e := s.size(digest.Digest(wanted)); e == nil {
			chosen, err = []ocispec.Descriptor{{Digest: digest.Digest(wanted), Size: size}}, nil
		}
	}
	if err != nil {
		return nil, s.fail(err)
	}
	c := &remote.Candidates{
		Index:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(content), Size: int64(len(content))},
		Content: content,
		Entries: candidates(chosen, full),
	}
	c.Ambiguous = func(positions []int) error {
		several := make(map[digest.Digest]bool)
		for _, i := range positions {
			several[c.Entries[i].Digest] = true
		}
		return ambiguous(s.location, filter(chosen, func(desc ocispec.Descriptor) bool { return several[desc.Digest] }))
	}
	s.index.Store(c)
	return c, nil
}

// readIndex returns index.json and its entries.
func (s *Source) readIndex() ([]byte, entries, error) {
	content, err := s.read(ocispec.ImageIndexFile)
	if err != nil {
		return nil, nil, err
	}
	var index struct {
		Manifests entries `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", remote.ErrUnsupported, ocispec.ImageIndexFile, remote.JSONError(err))
	}
	return content, index.Manifests, nil
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
		var desc remote.Described
		if err := dec.Decode(&desc); err != nil {
			return err
		}
		*e = append(*e, ocispec.Descriptor(desc))
	}
	return nil
}

// Fetch implements remote.Source. Digests decide: the size that desc states means
// nothing.
func (s *Source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if c := s.index.Load(); c != nil && c.Index.Digest == desc.Digest && ctx.Err() == nil {
		return bytes.Clone(c.Content), nil
	}
	b, err := localblob.New(s.Name(), desc, s.openDigest)
	if err != nil {
		return nil, err
	}
	return b.Fetch(ctx)
}

// Blob implements remote.Source. The blob has the size that it has, whatever desc
// states, if it is there.
func (s *Source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	b, err := localblob.NewSized(s.Name(), desc, s.openDigest, s.size)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close closes the files that have been read. Blobs cannot be read any more.
func (s *Source) Close() error {
	return s.files.Close()
}

// openDigest opens the blob of a digest.
func (s *Source) openDigest(d digest.Digest) (localblob.Content, error) {
	name, err := blobName(d)
	if err != nil {
		return nil, err
	}
	return s.files.open(name)
}

// size returns how large the blob of a digest is.
func (s *Source) size(d digest.Digest) (int64, error) {
	name, err := blobName(d)
	if err != nil {
		return 0, err
	}
	return s.files.size(name)
}

// Has implements remote.Catalog.
func (s *Source) Has(d digest.Digest) bool {
	_, err := s.size(d)
	return !errors.Is(err, remote.ErrNotFound)
}

// blobName returns the name of the file of a digest, which becomes part of it only
// if it is valid.
func blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", remote.ErrReference, err)
	}
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), nil
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
