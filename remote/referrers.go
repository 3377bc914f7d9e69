package remote

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A ReferrerList gathers what ArtifactSource.Referrers returns from image indexes
// that list referrers: the answers of a registry, or the index under a fallback tag.
type ReferrerList struct {
	// Subject and Type are those that Referrers was asked for.
	Subject digest.Digest
	Type    string

	found []ocispec.Descriptor
	known map[digest.Digest]bool
	read  int // entries
}

// FallbackTag returns the tag of the image index that lists a manifest's referrers in
// a registry without an API for them.
// OCI distribution-spec, "Referrers Tag Schema".
func FallbackTag(subject digest.Digest) string {
	cut := func(s string, most int) string {
		s = strings.Map(func(r rune) rune {
			if r == '_' || r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
				return r
			}
			return '-'
		}, s)
		return s[:min(len(s), most)]
	}
	return cut(subject.Algorithm().String(), 32) + "-" + cut(subject.Encoded(), 64)
}

// AddIndex adds those of an image index that can be referrers and may be of the type.
// What is no image index, and the subject itself, which GitLab has under the fallback
// tag of what it may list, adds none: the first is ErrUnsupported, wrapped.
func (l *ReferrerList) AddIndex(content []byte) error {
	k, _, err := classify("", content)
	switch {
	case err != nil:
		return err
	case k != kindIndex:
		return fmt.Errorf("%w: it is an image manifest, and no list of referrers", ErrUnsupported)
	case l.Subject.Algorithm().FromBytes(content) == l.Subject:
		return nil
	}
	var index struct {
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, JSONError(err))
	}
	err = eachDescriptor("manifests", index.Manifests, func(desc ocispec.Descriptor, err error) error {
		if l.read++; err == nil && l.read > maxIndexEntries {
			return errEnough
		}
		if err == nil {
			l.Add(desc)
		}
		return err
	})
	if err == errEnough {
		return nil
	}
	return err
}

// errEnough ends the reading of entries.
var errEnough = fmt.Errorf("%w: more than %d referrers", ErrUnsupported, maxIndexEntries)

// Wants tells whether what desc describes can be a referrer of the type, and was not
// added yet.
func (l *ReferrerList) Wants(desc ocispec.Descriptor) bool {
	t := bareMediaType(desc.MediaType)
	switch {
	case l.known[desc.Digest], desc.Digest == l.Subject, desc.Digest.Validate() != nil:
		return false
	case kindOf(t) != kindManifest && !sayNothing(t):
		return false
	}
	return l.Type == "" || desc.ArtifactType == "" || desc.ArtifactType == l.Type
}

// Add adds what desc describes, if it is wanted.
func (l *ReferrerList) Add(desc ocispec.Descriptor) {
	if l.Full() || !l.Wants(desc) {
		return
	}
	if l.known == nil {
		l.known = make(map[digest.Digest]bool)
	}
	l.known[desc.Digest] = true
	l.found = append(l.found, described(desc))
}

// Full tells whether no more can be added.
func (l *ReferrerList) Full() bool {
	return len(l.found) == MaxReferrers || l.read > maxIndexEntries
}

// Found returns what was added.
func (l *ReferrerList) Found() []ocispec.Descriptor { return l.found }
