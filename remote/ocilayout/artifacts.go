package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// ResolveTag implements remote.ArtifactSource: index.json has the tag as a name, or at
// the end of one. Of several entries those count that are in the repository of the
// source's own image. It reads index.json each time.
func (s *Source) ResolveTag(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	all, err := s.entries(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	tagged := filter(all, func(desc ocispec.Descriptor) bool {
		return slices.ContainsFunc(namesOf(desc), func(name string) bool { return name == tag || strings.HasSuffix(name, ":"+tag) })
	})
	if len(digestsOf(tagged)) > 1 {
		full := remote.Canonical(s.location.Image)
		tagged = filter(tagged, func(desc ocispec.Descriptor) bool {
			repository, ok := strings.CutSuffix(remote.Canonical(fullName(desc)), ":"+tag)
			return ok && strings.HasPrefix(full, repository+":")
		})
	}
	switch len(digestsOf(tagged)) {
	case 0:
		return ocispec.Descriptor{}, s.fail(fmt.Errorf("%w: no tag %.200q that is the only one of its name", remote.ErrNotFound, tag))
	case 1:
		return tagged[0], nil
	}
	return ocispec.Descriptor{}, s.fail(fmt.Errorf("%w: several have the tag %.200q", remote.ErrNotFound, tag))
}

// entries returns those of index.json.
func (s *Source) entries(ctx context.Context) ([]ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, all, err := s.readIndex()
	if err != nil {
		return nil, s.fail(err)
	}
	return all, nil
}

func digestsOf(entries []ocispec.Descriptor) map[digest.Digest]bool {
	digests := make(map[digest.Digest]bool)
	for _, desc := range entries {
		digests[desc.Digest] = true
	}
	return digests
}

// maxLooked is how many manifests of index.json are looked at for their subject.
const maxLooked = 1024

// Referrers implements remote.ArtifactSource: index.json lists the artifacts, or has
// the index that a tool would put under the fallback tag of a registry. What cannot be
// read is passed over.
func (s *Source) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := subject.Validate(); err != nil {
		return nil, s.fail(fmt.Errorf("%w: subject %.200q: %w", remote.ErrReference, subject, err))
	}
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	list := &remote.ReferrerList{Subject: subject, Type: artifactType}
	if desc, err := s.ResolveTag(ctx, remote.FallbackTag(subject)); err == nil {
		if content, err := s.Fetch(ctx, desc); err == nil {
			_ = list.AddIndex(content) // else it is something else
		}
	}
	for looked := 0; len(all) > 0 && looked < maxLooked && !list.Full(); all = all[1:] {
		if !list.Wants(all[0]) {
			continue
		}
		looked++
		switch a, err := remote.OpenArtifact(ctx, s, all[0]); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil && a.Subject != nil && a.Subject.Digest == subject:
			a.Descriptor.ArtifactType, a.Descriptor.Annotations = a.Type, a.Annotations
			list.Add(a.Descriptor)
		case err != nil && !errors.Is(err, remote.ErrNotFound) && !errors.Is(err, remote.ErrUnsupported) && !errors.Is(err, remote.ErrDigest):
			return nil, err
		}
	}
	return list.Found(), nil
}
