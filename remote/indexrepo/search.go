package indexrepo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// errSilent is why a place is given up that does not answer, and errSlow why one is that
// answers too slowly.
var (
	errSilent = fmt.Errorf("no answer within %v", Patience)
	errSlow   = fmt.Errorf("not all answers within %v", findTime)
)

// maxReferrers is how many referrers of an image are looked at.
const maxReferrers = 4

// A search is one Find.
type search struct {
	finder     *Finder
	place      Place
	repository string
	documents  remote.Source // of which manifests are fetched
	answered   func()        // to be called with each answer of the place

	mu      sync.Mutex
	missing map[digest.Digest]bool
	found   map[digest.Digest]*Published
}

// patience returns a context that ends when a place has not answered for too long.
// answered is to be called with each answer; stop frees what the context holds.
func patience(ctx context.Context) (silent context.Context, answered, stop func()) {
	silent, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(Patience, func() { cancel(errSilent) })
	all := time.AfterFunc(findTime, func() { cancel(errSlow) })
	answered = func() {
		if timer.Stop() {
			timer.Reset(Patience)
		}
	}
	return silent, answered, func() {
		timer.Stop()
		all.Stop()
		cancel(nil)
	}
}

// all asks for the indexes of the image, and then of each layer.
func (s *search) all(ctx context.Context, manifest digest.Digest) error {
	s.documents = s.finder.Meta.Source(s.place.Source, &meta.SourceOptions{Offline: s.finder.Offline})
	if tag, ok := Tag(manifest); ok {
		if err := s.ask(ctx, tag, manifest); err != nil {
			return err
		}
	}
	if s.place.Beside {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxAsked)
	for _, d := range s.left() {
		if tag, ok := Tag(d); ok {
			group.Go(func() error { return s.ask(ctx, tag, "") })
		}
	}
	return group.Wait()
}

// left returns the layers that nothing was found of yet.
func (s *search) left() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []digest.Digest
	for d := range s.missing {
		left = append(left, d)
	}
	return left
}

// ask takes what is under a tag: of the image with the manifest subject, or of a
// single layer if that is "". The error is why the place is of no use at all.
func (s *search) ask(ctx context.Context, tag string, subject digest.Digest) error {
	f, name := s.finder, s.repository+":"+tag
	if desc, ok := f.Meta.Reference(name); ok {
		if err := s.take(ctx, name, desc); err == nil {
			return nil
		}
		f.Forget(&Published{name: name})
	}
	if f.Offline || f.Meta.IsMissing(name) {
		return nil
	}
	desc, err := s.place.Source.ResolveTag(ctx, tag)
	if err == nil {
		s.answered()
		err = s.take(ctx, name, desc)
	}
	if isNone(err) && subject != "" && s.place.Beside {
		err = s.referrers(ctx, name, subject)
	}
	if isNone(err) {
		s.answered()
		f.debugf("indexes in %s: %v", s.repository, err)
		f.Meta.KeepMissing(name, restTime)
		return nil
	}
	return err
}

// isNone reports whether an error says that there is nothing of use behind a name,
// while the place as such may have other things.
func isNone(err error) bool {
	return errors.Is(err, remote.ErrNotFound) || errors.Is(err, remote.ErrUnsupported) || errors.Is(err, remote.ErrDigest) || errors.Is(err, errFormat)
}

// referrers takes the first of an image's referrers that has indexes of its layers.
func (s *search) referrers(ctx context.Context, name string, subject digest.Digest) error {
	list, err := s.place.Source.Referrers(ctx, subject, ArtifactType)
	if err != nil {
		return err
	}
	s.answered()
	err = fmt.Errorf("referrers of %s: %w", subject, remote.ErrNotFound)
	for _, desc := range list[:min(len(list), maxReferrers)] {
		if err = s.take(ctx, name, desc); !isNone(err) {
			return err
		}
	}
	return err
}

// take reads a manifest and notes the indexes in it of layers that are missing. The
// manifest is remembered under the name if there are any.
func (s *search) take(ctx context.Context, name string, desc ocispec.Descriptor) error {
	if desc.Size > maxManifest {
		return fmt.Errorf("%w: it has %d bytes", errFormat, desc.Size)
	}
	artifact, err := remote.OpenArtifact(ctx, s.documents, desc)
	if err != nil {
		return err
	}
	s.answered()
	all, err := describe(artifact)
	if err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	any := false
	for _, d := range all {
		p, err := s.published(name, d)
		if err != nil {
			return err
		}
		any = s.note(p) || any
	}
	switch {
	case !any:
		s.finder.debugf("indexes in %s: %s has none of a layer that is wanted", s.repository, desc.Digest)
	case !s.finder.Offline:
		s.finder.Meta.KeepReference(name, desc)
	}
	return nil
}

// published makes blobs of a description.
func (s *search) published(name string, d *Description) (*Published, error) {
	p := &Published{Description: *d, Repository: s.repository, name: name}
	var err error
	if p.IndexBlob, err = s.documents.Blob(d.Index); err == nil && d.Digests.Digest != "" {
		p.DigestsBlob, err = s.documents.Blob(d.Digests)
	}
	return p, err
}

// note adds what was found, if it is missing, and reports whether it was.
func (s *search) note(p *Published) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.missing[p.Layer] {
		return false
	}
	delete(s.missing, p.Layer)
	s.found[p.Layer] = p
	return true
}
