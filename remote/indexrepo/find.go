package indexrepo

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

const (
	// Patience is how long a place may say nothing before it is given up, and what it
	// has said until then is all.
	Patience = 3 * time.Second
	// findTime is how long a place is asked at most.
	findTime = 3 * Patience
	// restTime is how long a place is not asked again that was given up, and a tag
	// that was not there.
	restTime = 5 * time.Minute
	// maxAsked is how many requests a Find has under way.
	maxAsked = 8
)

// A Place is where indexes may be published.
type Place struct {
	// Source is the index repository; beside an image, the image's.
	Source remote.ArtifactSource
	// Beside says that Source is the image's own repository: it has indexes of
	// whole images only, and those have the image as their subject.
	Beside bool
}

// A Published is the index of a layer that a place has. Nothing of it has been
// read yet but the manifest.
type Published struct {
	Description
	// Repository is the place's, for messages.
	Repository string
	// IndexBlob and DigestsBlob are the contents; DigestsBlob is nil if the index
	// has no content digests.
	IndexBlob, DigestsBlob remote.Blob

	name string // of the tag, as it is remembered
}

// A Finder finds published indexes. It is safe for concurrent use.
type Finder struct {
	// Meta is where manifests that were found are kept: what is known from there is not
	// asked for again, also by later processes. It remembers for some minutes, too, what
	// is not there.
	Meta *meta.Cache
	// Offline says that nothing is asked for but Meta.
	Offline bool
	// Warnf, if not nil, is told of a place that refuses, fails or does not answer, once
	// in some minutes.
	Warnf func(format string, args ...any)
	// Debugf, if not nil, gets a line for each tag that is of no use.
	Debugf func(format string, args ...any)
}

// Find returns the indexes that a place has of the layers with these digests. It
// asks for those of the image first, whose manifest for one platform is manifest
// ("" if there is none), and then, in an index repository, for single layers.
//
// There is no error: a place that has nothing, refuses, or sends what cannot be
// understood has none, and Warnf or Debugf is told why. One that says nothing for Patience,
// or takes three times as long, is given up, and counts as having none for some minutes; so
// does one that refuses
// or fails. Find returns as soon as ctx ends.
func (f *Finder) Find(ctx context.Context, at Place, manifest digest.Digest, layers []digest.Digest) map[digest.Digest]*Published {
	s := &search{finder: f, place: at, repository: at.Source.Repository(), found: make(map[digest.Digest]*Published)}
	s.missing = make(map[digest.Digest]bool, len(layers))
	for _, d := range layers {
		s.missing[d] = true
	}
	if len(s.missing) == 0 {
		return s.found
	}
	if !f.Offline && f.Meta.IsMissing(s.repository) {
		return s.found
	}
	ctx, answered, stop := patience(ctx)
	defer stop()
	s.answered = answered
	err := s.all(ctx, manifest)
	if cause := context.Cause(ctx); cause == errSilent || cause == errSlow {
		err = cause
	} else if ctx.Err() != nil {
		err = nil // nobody wants to know any more
	}
	if err != nil && !f.Offline {
		f.rest(s.repository, err)
	}
	return s.found
}

// Forget has what was found asked for again the next time: the blobs are gone, or
// are not what the manifest says.
func (f *Finder) Forget(p *Published) {
	if !f.Offline {
		f.Meta.ForgetReference(p.name)
	}
}

// rest leaves a repository alone for a while, and tells why.
func (f *Finder) rest(repository string, why error) {
	if f.Warnf != nil {
		f.Warnf("no indexes come from %s: %v", repository, why)
	}
	f.Meta.KeepMissing(repository, restTime)
}

func (f *Finder) debugf(format string, args ...any) {
	if f.Debugf != nil {
		f.Debugf(format, args...)
	}
}
