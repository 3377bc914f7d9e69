package image

import (
	"bytes"
	"context"
	"fmt"

	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// PublishProfile puts a profile of the image's repository into an index repository, or beside
// the image for "", and reports whether it was not there. version is what the manifest says
// of the program. The errors are those of Layers.Publish.
func (r *Resolved) PublishProfile(ctx context.Context, repository, version string, p *profile.Profile) (pushed bool, err error) {
	of, platform, ok := r.profileKey()
	if !ok {
		return false, fmt.Errorf("%s: %w: it has no profile", r.Name(), ErrNotPublished)
	}
	to, err := r.publishTo(repository)
	if err != nil {
		return false, err
	}
	pushed, err = indexrepo.PublishProfile(ctx, to, &indexrepo.Profile{Repository: of, Platform: platform, Content: p.Encode()}, version)
	if err != nil {
		return false, r.advisePush(to, err)
	}
	return pushed, nil
}

// PublishedProfile returns the profile that is published for images like this one, nil if
// there is none, and has the cache keep it. The places are those that are asked for published
// indexes, in their order: each may take the time that Finder.FindProfile gives it. It is a
// hint, so what is wrong with one is for Options.Debugf alone.
func (r *Resolved) PublishedProfile(ctx context.Context) *profile.Profile {
	repository, platform, ok := r.profileKey()
	if !ok {
		return nil
	}
	finder := indexrepo.Finder{Meta: r.disk.Meta, Offline: r.opts.Offline, Debugf: r.opts.Debugf}
	for _, place := range r.profilePlaces() {
		src, err := r.indexPlace(place)
		if err != nil {
			if r.opts.Debugf != nil {
				r.opts.Debugf("no published profile: %v", err)
			}
			continue
		}
		var p *profile.Profile
		if finder.FindProfile(ctx, src, repository, platform, func(content []byte) (err error) {
			p, err = decodePublished(content, repository, platform)
			return err
		}) {
			if noted := r.KeptProfile(); noted != nil { // meanwhile, by another mount
				return noted
			}
			_ = KeepProfile(r.disk, p) // it serves this mount without
			return p
		}
	}
	return nil
}

// profilePlaces returns the index repositories that may be asked for a profile, and "" for
// the image's own repository: those that others.of asks for indexes.
func (r *Resolved) profilePlaces() []string {
	switch r.opts.IndexTrust {
	case TrustNamed, TrustRepositories:
		return r.IndexRepositories()
	case TrustPublished:
		return append(r.IndexRepositories(), "")
	}
	return nil
}

// decodePublished reads a profile that must be of these images: a tag is no proof of that.
func decodePublished(content []byte, repository, platform string) (*profile.Profile, error) {
	p, err := profile.Decode(bytes.NewReader(content))
	switch {
	case err != nil:
		return nil, err
	case p.Repository != repository || p.Platform != platform:
		return nil, fmt.Errorf("it says that it is of %.200q for %.50q", p.Repository, p.Platform)
	case len(p.Starts) == 0:
		return nil, fmt.Errorf("%w: it has no start", profile.ErrFormat)
	}
	return p, nil
}
