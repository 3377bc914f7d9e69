// Package containerdstore reads images where containerd keeps them, and docker with
// containerd's image store: containerd:[NAMESPACE@ROOT]REF.
//
//	src, err := containerdstore.Open(ctx, "k8s.io", "docker.io/library/alpine:3.10")
//	img, err := remote.Open(ctx, src, "")
//
// Images have names in a database (meta.db), which leads to the digest of a manifest or
// image index; blobs lie beside it in files that are called by their digests, as in an
// OCI layout. A running containerd holds the lock of the database, so it is read without
// one, page by page: see database. Nothing is written.
//
// What an image consists of need not be there: containerd fetches the platform that it
// runs, and may be set to discard layers once they are unpacked.
package containerdstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/internal/localblob"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	databaseFile = "io.containerd.metadata.v1.bolt/meta.db"
	blobsDir     = "io.containerd.content.v1.content/blobs"
	// maxImages is how many images a namespace may have.
	maxImages = 64 << 10
	// maxTries is how often the database is read anew because it was written.
	maxTries = 20
)

// A Source is one image of a store. It is safe for concurrent use.
type Source struct {
	location remote.Location
	place    place
	name     string // of the image
	top      ocispec.Descriptor
	blobs    *beneath.Dir

	mu sync.Mutex
	// opened is nil once the source is closed.
	opened map[digest.Digest]*blobFile
}

var _ remote.Source = (*Source)(nil)

// Open opens the store that spec says, which is NAMESPACE@ROOT, one of these or "", and
// finds an image in it: by the name that it has there, what is short for that, or "@"
// and the digest of a manifest or image index.
//
// The errors are remote.ErrNotFound, ErrReference, ErrUnavailable and ErrUnsupported,
// wrapped. A *remote.StoreError says what to type instead.
func Open(ctx context.Context, spec, image string) (*Source, error) {
	s := &Source{
		location: remote.Location{Transport: remote.TransportContainerd, Path: spec, Image: image},
		opened:   make(map[digest.Digest]*blobFile),
	}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	return s, nil
}

func (s *Source) open(ctx context.Context) error {
	var err error
	if s.place, err = parsePlace(s.location.Path); err != nil {
		return err
	}
	root, err := beneath.Open(s.place.root, &beneath.Options{Foreign: true})
	if err != nil {
		return s.unopened(err)
	}
	defer root.Close()
	f, err := root.Open(databaseFile)
	if err != nil {
		return s.unopened(err)
	}
	defer f.Close()
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.find(f)
		if err == nil {
			break
		}
		if try < maxTries && errors.Is(err, errChanged) {
			continue
		}
		if errors.Is(err, errDatabase) || errors.Is(err, errChanged) {
			return fmt.Errorf("%w: %s: %w", remote.ErrUnavailable, f.Name(), err)
		}
		return err
	}
	if s.blobs, err = beneath.Open(root.Path(blobsDir), &beneath.Options{Foreign: true}); err != nil {
		return s.unopened(err)
	}
	return nil
}

// unopened says what is the matter with a store that cannot be opened.
func (s *Source) unopened(err error) error {
	var refused *beneath.RefusedError
	switch {
	case errors.Is(err, fs.ErrPermission), errors.As(err, &refused) && errors.Is(refused.Err, fs.ErrPermission):
		return &remote.StoreError{Err: fmt.Errorf("%w: %w", remote.ErrUnavailable, err), Command: s.exported()}
	case errors.As(err, &refused):
		return fmt.Errorf("%w: %w", remote.ErrUnsupported, err)
	case errors.Is(err, fs.ErrNotExist):
		failed := fmt.Errorf("%w: there is no store of containerd in %s", remote.ErrNotFound, s.place.root)
		if _, err := os.Stat(dockerRoot + "/" + databaseFile); err == nil && s.place.root != dockerRoot {
			loc := s.location
			loc.Path = dockerNamespace + "@" + dockerRoot
			return &remote.StoreError{Err: failed, Command: "for docker's: " + printable.Word(loc.String())}
		}
		return failed
	}
	return fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
}

// exported returns the command that makes an archive of the image.
func (s *Source) exported() string {
	command := "ctr"
	if os.Geteuid() != 0 {
		command = "sudo ctr"
	}
	name := s.name
	if name == "" {
		name = s.location.Image
		if full := remote.Canonical(name); full != "" {
			name = full
		}
	}
	return fmt.Sprintf("%s -n %s images export image.tar %s && imgfs ls image.tar", command, printable.Word(s.place.namespace), printable.Word(name))
}

// find finds the image in the database.
func (s *Source) find(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	db, err := openDatabase(f, info.Size())
	if err == nil {
		err = s.findIn(db)
		// What was found, or not, is only true if nothing has changed meanwhile.
		if changed := db.changed(); changed != nil {
			return changed
		}
	}
	if err != nil && errors.As(err, new(*fs.PathError)) {
		return fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	return err
}

func (s *Source) findIn(db *database) error {
	version, ok, err := db.top().bucket("v1")
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: the database of containerd is of another version", remote.ErrUnsupported)
	}
	space, ok, err := version.bucket(s.place.namespace)
	if err != nil {
		return err
	}
	if !ok {
		return s.noNamespace(version)
	}
	images, ok, err := space.bucket("images")
	if err != nil {
		return err
	}
	if !ok {
		return &remote.NameError{Image: s.location.Image}
	}
	if s.name, err = choose(images, s.location.Image); err != nil {
		var several *remote.AmbiguousError
		if errors.As(err, &several) {
			for _, name := range several.Named {
				at := s.location
				at.Image = name
				several.Locations = append(several.Locations, at)
			}
		}
		return err
	}
	s.top, err = target(images, s.name)
	if wanted, ok := strings.CutPrefix(s.location.Image, "@"); ok && err == nil {
		s.top = ocispec.Descriptor{Digest: digest.Digest(wanted)}
	}
	return err
}

// noNamespace says which namespaces there are.
func (s *Source) noNamespace(version bucket) error {
	var there []string
	err := version.each(func(e element) error {
		if e.bucket && len(there) < maxImages {
			there = append(there, string(e.key))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: no namespace %.100q; there is %s", remote.ErrNotFound, s.place.namespace, remote.ListNames(there))
}

// target returns what an image's name leads to.
func target(images bucket, name string) (desc ocispec.Descriptor, err error) {
	image, ok, err := images.bucket(name)
	if err != nil || !ok {
		return desc, err
	}
	record, ok, err := image.bucket("target")
	if err != nil || !ok {
		return desc, err
	}
	for _, m := range []struct {
		key string
		set func(value []byte)
	}{
		{"digest", func(v []byte) { desc.Digest = digest.Digest(v) }},
		{"mediatype", func(v []byte) { desc.MediaType = string(v) }},
		{"size", func(v []byte) { desc.Size, _ = binary.Varint(v) }},
	} {
		value, ok, err := record.value(m.key)
		if err != nil {
			return desc, err
		}
		if ok {
			m.set(value)
		}
	}
	return desc, nil
}

// Name implements remote.Source: the location as the user writes it.
func (s *Source) Name() string { return s.location.String() }

// Repository implements remote.Source: that of the image's name, if it is a reference.
func (s *Source) Repository() string {
	ref, err := remote.ParseReference(s.name)
	if err != nil || strings.HasPrefix(s.location.Image, "@") {
		return ""
	}
	return ref.Name()
}

// Resolve implements remote.Source. It returns what the database said when the store
// was opened.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := s.top
	size, err := s.size(desc.Digest)
	if err != nil {
		return desc, fmt.Errorf("%s: manifest %s: %w", s.Name(), desc.Digest, err)
	}
	desc.Size = size
	return desc, nil
}

// Fetch implements remote.Source. Digests decide: the size that desc states means
// nothing.
func (s *Source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	b, err := localblob.New(s.Name(), desc, s.openBlob)
	if err != nil {
		return nil, err
	}
	return b.Fetch(ctx)
}

// Blob implements remote.Source. The blob has the size that it has, whatever desc
// states, if it is there.
func (s *Source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	b, err := localblob.NewSized(s.Name(), desc, s.openBlob, s.size)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close closes the files that have been read. Blobs cannot be read any more.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.opened {
		errs = append(errs, f.Close())
	}
	s.opened = nil
	if s.blobs != nil {
		errs = append(errs, s.blobs.Close())
	}
	return errors.Join(errs...)
}
