package image

import (
	"bytes"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ProfileKey returns of what the profile of an image is: of all images of its repository for
// a system and an architecture, whatever their tag. ok is false if the image, by its name, is
// in no registry: reading what is on this machine takes no preparing.
func ProfileKey(name string, p ocispec.Platform) (repository, platform string, ok bool) {
	ref, err := remote.ParseReference(name)
	if err != nil {
		return "", "", false
	}
	return ref.Name(), p.OS + "/" + p.Architecture, true
}

// profileKey is ProfileKey of the image.
func (r *Resolved) profileKey() (repository, platform string, ok bool) {
	if r.Local() || r.Source == nil {
		return "", "", false
	}
	return ProfileKey(r.Name(), r.Platform)
}

// HasProfile reports whether a profile may be kept of the image.
func (r *Resolved) HasProfile() bool {
	_, _, ok := r.profileKey()
	return ok
}

// KeptProfile returns the profile that the cache has for images like this one, nil if there
// is none. One that cannot be read is none.
func (r *Resolved) KeptProfile() *profile.Profile {
	repository, platform, ok := r.profileKey()
	if !ok {
		return nil
	}
	p, err := ReadProfile(r.disk, repository, platform)
	if err != nil {
		return nil
	}
	return p
}

// ReadProfile returns the profile that a cache has for a key, nil if there is none. The
// error wraps profile.ErrFormat.
func ReadProfile(c *cache.Cache, repository, platform string) (*profile.Profile, error) {
	data := c.Meta.Profile(repository, platform)
	if data == nil {
		return nil, nil
	}
	p, err := profile.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("the profile of %s for %s: %w", repository, platform, err)
	}
	return p, nil
}

// KeepProfile keeps a profile in a cache, for the repository and platform that it names, in
// place of the one that it has. The error wraps cache.ErrFull where
// disk or budget have no room for it.
func KeepProfile(c *cache.Cache, p *profile.Profile) error {
	data := p.Encode()
	c.Meta.KeepProfile(p.Repository, p.Platform, data)
	if !bytes.Equal(c.Meta.Profile(p.Repository, p.Platform), data) {
		return fmt.Errorf("cache directory %s: %w for a profile", c.Dir(), cache.ErrFull)
	}
	return nil
}

// NoteReads adds what was read of the image to the profile that the cache has.
func (r *Resolved) NoteReads(reads []profile.Read) {
	repository, platform, ok := r.profileKey()
	if !ok || len(reads) == 0 {
		return
	}
	defer r.disk.Meta.LockProfiles()()
	p := r.KeptProfile()
	if p == nil {
		p = profile.New(repository, platform)
	}
	// The key is of these, whatever a profile that was imported says.
	p.Repository, p.Platform = repository, platform
	p.Add(reads, time.Now())
	if len(p.Starts) > 0 {
		_ = KeepProfile(r.disk, p) // it is a hint
	}
}
