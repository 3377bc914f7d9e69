package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Catalog is a Source with an image index of its own whose entries have names,
// as the index.json of an OCI layout: its reference may mean several entries.
// Then Resolve returns the index itself, and Fetch its content.
type Catalog interface {
	Source
	// Candidates returns the entries that the reference means. The errors are
	// those of Resolve.
	Candidates(ctx context.Context) (*Candidates, error)
	// Has tells whether the content of a digest is there: a layout need not have all
	// that its image indexes list.
	Has(d digest.Digest) bool
}

// Candidates are the entries of a catalog that a reference means.
type Candidates struct {
	// Index describes the catalog's index, and Content is it, byte for byte.
	Index   ocispec.Descriptor
	Content []byte
	// Entries holds the entries, at least one, in the order of the index, and each
	// digest once.
	Entries []Candidate
	// Ambiguous returns the error for a reference that means several images, which
	// are at the positions given: an *AmbiguousError that says how each is named.
	Ambiguous func(positions []int) error
}

// A Candidate is an entry of a catalog.
type Candidate struct {
	ocispec.Descriptor
	// Platforms holds the platforms that the index states for the digest; there may
	// be none.
	Platforms []ocispec.Platform
	// Names holds the full names of the images that the entry is, if the reference
	// is not one of these itself; there may be none.
	Names []string
}

// stated returns the entries that a candidate stands for, one for each platform.
func (c *Candidate) stated() []ocispec.Descriptor {
	if len(c.Platforms) == 0 {
		desc := c.Descriptor
		desc.Platform = nil
		return []ocispec.Descriptor{desc}
	}
	var all []ocispec.Descriptor
	known := make(map[string]bool)
	for _, p := range c.Platforms {
		name := formatPlatform(p)
		if known[name] {
			continue
		}
		known[name] = true
		desc := c.Descriptor
		desc.Platform = &p
		all = append(all, desc)
	}
	return all
}

// maxNamed is how many images an AmbiguousError lists.
const maxNamed = 32

// An AmbiguousError says that a reference means several images. It is
// ErrReference.
type AmbiguousError struct {
	// Image is the part of the name that does so, "" if none is named.
	Image string
	// Named holds what to write in its place.
	Named []string
	// Locations holds the whole names of the same images.
	Locations []Location
}

// Error implements error. It lists up to 32 names.
func (e *AmbiguousError) Error() string {
	if e.Image == "" {
		return fmt.Sprintf("%v: it names none of several images; there is %s", ErrReference, ListNames(e.Named))
	}
	return fmt.Sprintf("%v: %.200q is ambiguous, it names several images: %s", ErrReference, e.Image, ListNames(e.Named))
}

// Is makes the error ErrReference.
func (e *AmbiguousError) Is(target error) bool { return target == ErrReference }

// A NameError says that a layout or an archive has no image of a name. It is
// ErrNotFound.
type NameError struct {
	// Image is the name that was asked for, and Names those that there are, as a
	// Location has them.
	Image string
	Names []string
}

// Error lists some of the names.
func (e *NameError) Error() string {
	return fmt.Sprintf("%v: no image %q; there is %s", ErrNotFound, e.Image, ListNames(e.Names))
}

// Unwrap returns ErrNotFound.
func (e *NameError) Unwrap() error { return ErrNotFound }

// ListNames lists up to 32 names of images, quoted.
func ListNames(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	var list []string
	for _, name := range names[:min(len(names), maxNamed)] {
		list = append(list, fmt.Sprintf("%.200q", name))
	}
	if more := len(names) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}

// A top is what a reference names.
type top struct {
	// desc describes it. It is the catalog's index if the reference means several of
	// its entries, and several are those; content is then that index.
	desc    ocispec.Descriptor
	content []byte
	several []Candidate
	// stated holds what the catalog says that desc is for.
	stated []ocispec.Platform
	// ambiguous returns an error that names some of several, nil for all.
	ambiguous func(positions []int) error
}

// top finds out what the reference of the source names. Of several entries of a
// catalog it leaves out those that are no images, such as signatures beside one.
func (o *opener) top(ctx context.Context) (*top, error) {
	catalog, ok := o.src.(Catalog)
	if !ok {
		desc, err := o.resolve(ctx)
		return &top{desc: desc}, err
	}
	c, err := catalog.Candidates(ctx)
	if err != nil {
		return nil, err
	}
	positions := o.images(ctx, c.Entries)
	if len(positions) == 1 {
		e := c.Entries[positions[0]]
		return &top{desc: e.Descriptor, stated: e.Platforms}, nil
	}
	t := &top{desc: c.Index, content: c.Content}
	for _, i := range positions {
		t.several = append(t.several, c.Entries[i])
	}
	t.ambiguous = func(chosen []int) error {
		if chosen == nil {
			return o.fail("", c.Ambiguous(positions))
		}
		var at []int
		for _, i := range chosen {
			at = append(at, positions[i])
		}
		return o.fail("", c.Ambiguous(at))
	}
	silent := 0
	for _, e := range t.several {
		if len(e.Platforms) == 0 {
			silent++
		}
	}
	if severalNames(t.several) || silent > maxIndexReads {
		return nil, t.ambiguous(nil)
	}
	return t, nil
}

// resolve finds out what the reference names, and keeps it. What a tag names may
// have been said wrongly, or have changed since: then it is asked for again.
func (o *opener) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	desc, err := o.src.Resolve(ctx)
	if err != nil {
		return desc, err
	}
	o.resolved = desc.Digest
	content, err := o.fetch(ctx, "manifest", &desc, maxManifestSize)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDigest) {
		// Or it may be there under the tag alone.
		again, failed := o.src.Resolve(ctx)
		if failed != nil {
			return desc, err
		}
		desc, o.resolved = again, again.Digest
		content, err = o.fetch(ctx, "manifest", &desc, maxManifestSize)
	}
	if err == nil {
		o.kept[desc.Digest] = content
	}
	return desc, err
}

// images returns the positions of the entries that may be images of their own, or of
// all if none is one.
func (o *opener) images(ctx context.Context, entries []Candidate) []int {
	var all, images []int
	for i, e := range entries {
		all = append(all, i)
		if isImageEntry(e.Descriptor) {
			images = append(images, i)
		}
	}
	if len(images) > 1 && len(images) <= maxIndexReads {
		digests := make(map[digest.Digest]bool)
		for _, i := range images {
			digests[entries[i].Digest] = true
		}
		drop := make(map[int]bool)
		for _, i := range images {
			listed, belongs := o.relations(ctx, entries[i].Descriptor, digests)
			drop[i] = drop[i] || belongs
			if len(listed) == 0 {
				continue
			}
			names := make(map[string]bool)
			for _, name := range entries[i].Names {
				names[name] = true
			}
			for _, j := range images {
				// Some tools enter what an image index lists as well.
				other := slices.ContainsFunc(entries[j].Names, func(name string) bool { return !names[name] })
				drop[j] = drop[j] || listed[entries[j].Digest] && !other
			}
		}
		images = slices.DeleteFunc(images, func(i int) bool { return drop[i] })
	}
	if len(images) == 0 {
		return all
	}
	return images
}

// relations returns what an entry lists, if it is an image index, and tells whether it
// belongs to an image instead of being one: it is a manifest that is no image's, or it
// refers to one of the others. What cannot be read does not; who needs it gets the
// error.
func (o *opener) relations(ctx context.Context, desc ocispec.Descriptor, others map[digest.Digest]bool) (listed map[digest.Digest]bool, belongs bool) {
	content, k, _, err := o.document(ctx, &desc)
	if err != nil {
		return nil, false
	}
	o.kept[desc.Digest] = content
	var doc struct {
		Manifests json.RawMessage `json:"manifests"`
		Subject   struct {
			Digest digest.Digest `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, false
	}
	if k == kindManifest {
		m, err := readManifest(content)
		return nil, err == nil && isArtifact(m) || others[doc.Subject.Digest]
	}
	listed = make(map[digest.Digest]bool)
	_ = eachDescriptor("manifests", doc.Manifests, func(entry ocispec.Descriptor, err error) error {
		listed[entry.Digest] = true
		return err
	})
	return listed, others[doc.Subject.Digest]
}

// severalNames tells whether a name that is not the full one of any image is part
// of the full names of several, which differ in what they are.
func severalNames(entries []Candidate) bool {
	digests := make(map[string][]digest.Digest) // of each name
	for _, e := range entries {
		for _, name := range e.Names {
			digests[name] = append(digests[name], e.Digest)
		}
	}
	var first []digest.Digest
	for _, all := range digests {
		if first == nil {
			first = all
		}
		if !slices.Equal(first, all) {
			return true
		}
	}
	return false
}

// chooseEntry returns the manifest for the platform wanted of those that t.several
// are or lead to. Two that are for the same platform are two images, unless one
// image index has both. If none is for the platform wanted, what there is can be told
// apart by other platforms, or is ambiguous.
func (o *opener) chooseEntry(ctx context.Context, t *top, want wish) (ocispec.Descriptor, error) {
	w := &indexWalk{opener: o, want: want}
	for i, e := range t.several {
		w.from = i
		for _, desc := range e.stated() {
			if err := w.sort(ctx, desc, 0); err != nil {
				return ocispec.Descriptor{}, err
			}
		}
	}
	if err := w.readSilent(ctx); err != nil {
		return ocispec.Descriptor{}, err
	}
	best, err := w.best(ctx)
	switch {
	case errors.As(err, new(*PlatformError)) && (w.untold || !want.asked && w.shared()),
		err == nil && best.Platform == nil && len(t.several) > 1:
		return ocispec.Descriptor{}, t.ambiguous(nil)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	equals := map[int]bool{best.from: true}
	for _, f := range w.fit {
		if f.Digest != best.Digest && w.compare(f, best) == 0 && formatPlatform(*f.Platform) == formatPlatform(*best.Platform) {
			equals[f.from] = true
		}
	}
	if len(equals) > 1 {
		return ocispec.Descriptor{}, t.ambiguous(slices.Sorted(maps.Keys(equals)))
	}
	return best.Descriptor, nil
}

// alike returns the positions of entries that no platform tells apart.
func (o *opener) alike(ctx context.Context, t *top) []int {
	stated := make(map[string][]int)
	for i, e := range t.several {
		for _, desc := range e.stated() {
			p := desc.Platform
			if p == nil {
				// A config that cannot be read says nothing.
				if content, _, _, err := o.document(ctx, &desc); err == nil {
					p, _, _ = o.platformOf(ctx, content)
				}
			}
			name := ""
			if p != nil {
				name = formatPlatform(*p)
			}
			if stated[name] = append(stated[name], i); len(stated[name]) > 1 {
				return stated[name]
			}
		}
	}
	return nil
}
