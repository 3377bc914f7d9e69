package indexrepo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/registry"
)

// ProfileType is the type of the manifests of published profiles.
const ProfileType = "application/vnd.imgfs.profile.v1"

// docs/published-indexes.md, "Profiles".
const (
	profileTagPrefix = tagPrefix + "profile-"
	profileBlobType  = "application/vnd.imgfs.profile.v1+json"
	maxProfile       = 8 << 20
)

// errProfile says that something is not a published profile.
var errProfile = fmt.Errorf("%w: not a published profile", remote.ErrUnsupported)

// A Profile is what programs read first of the images of a repository for a platform.
type Profile struct {
	Repository, Platform string
	// Content is the profile as docs/profile-format.md has it.
	Content []byte
}

// ProfileTag returns the tag that the profile of a repository's images for a platform has.
func ProfileTag(repository, platform string) string {
	return profileTagPrefix + meta.ProfileName(repository, platform)
}

// PublishProfile puts a profile into a place, in place of the one that it has, and reports
// whether it had another one or none. version is the program that publishes, for people. Of
// several who publish at the same time one is the last.
func PublishProfile(ctx context.Context, to *registry.Repository, x *Profile, version string) (pushed bool, err error) {
	if len(x.Content) > maxProfile {
		return false, fmt.Errorf("the profile has %d bytes: more than %d are not read", len(x.Content), maxProfile)
	}
	desc := ocispec.Descriptor{MediaType: profileBlobType, Digest: digest.FromBytes(x.Content), Size: int64(len(x.Content))}
	content, err := encodeManifest(ProfileType, []ocispec.Descriptor{desc}, nil, version)
	if err != nil {
		return false, err
	}
	p := newPublisher(to, &Image{})
	return p.putManifest(ctx, ProfileTag(x.Repository, x.Platform), content, []blob{{desc, bytes.NewReader(x.Content)}}, func(a *remote.Artifact) bool {
		there, err := describeProfile(a)
		return err == nil && there.Digest == desc.Digest
	})
}

// describeProfile returns where the profile of a manifest is. The error wraps errProfile.
func describeProfile(a *remote.Artifact) (ocispec.Descriptor, error) {
	if a.Type != ProfileType {
		return ocispec.Descriptor{}, fmt.Errorf("%w: its artifact type is %.100q", errProfile, a.Type)
	}
	i := slices.IndexFunc(a.Layers, func(d ocispec.Descriptor) bool { return d.MediaType == profileBlobType })
	if i < 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w: it leads to none", errProfile)
	}
	if n := a.Layers[i].Size; n > maxProfile {
		return ocispec.Descriptor{}, fmt.Errorf("%w: it has %d bytes, more than %d", errProfile, n, maxProfile)
	}
	return bare(a.Layers[i]), nil
}

// FindProfile has take get the profile that a place has of a repository's images for a
// platform, and reports whether there is one. The content has the digest that the place says,
// and at most 8 MiB; an error of take says that it is of no use.
//
// As for Find there is no error: Debugf is told. A place is given up as by Find; what was not
// there, did not come or was of no use is not asked for again for some minutes. Offline
// nothing is asked for. FindProfile returns as soon as ctx ends.
func (f *Finder) FindProfile(ctx context.Context, at remote.ArtifactSource, repository, platform string, take func(content []byte) error) bool {
	tag := ProfileTag(repository, platform)
	name := at.Repository() + ":" + tag
	if f.Offline || f.Meta.IsMissing(at.Repository()) || f.Meta.IsMissing(name) {
		return false
	}
	asking, answered, stop := patience(ctx)
	defer stop()
	content, err := readProfile(asking, at, tag, answered)
	if err == nil {
		err = take(content)
	} else if cause := context.Cause(asking); cause != nil {
		err = cause
	}
	if err == nil {
		return true
	}
	if ctx.Err() == nil { // else nobody wants to know any more
		f.debugf("no profile comes from %s: %v", at.Repository(), err)
		f.Meta.KeepMissing(name, restTime)
	}
	return false
}

// readProfile returns the profile under a tag.
func readProfile(ctx context.Context, at remote.ArtifactSource, tag string, answered func()) ([]byte, error) {
	desc, err := at.ResolveTag(ctx, tag)
	if err != nil {
		return nil, err
	}
	answered()
	a, err := remote.OpenArtifact(ctx, at, desc)
	if err != nil {
		return nil, err
	}
	answered()
	if desc, err = describeProfile(a); err != nil {
		return nil, err
	}
	b, err := at.Blob(desc)
	if err != nil {
		return nil, err
	}
	s := remote.NewStream(ctx, b, &remote.StreamOptions{Arrived: func(int) { answered() }})
	defer s.Close()
	content, err := io.ReadAll(io.LimitReader(s, desc.Size))
	switch {
	case err != nil:
		return nil, err
	case desc.Digest.Algorithm().FromBytes(content) != desc.Digest:
		return nil, fmt.Errorf("%s: %w", desc.Digest, remote.ErrDigest)
	}
	return content, nil
}
