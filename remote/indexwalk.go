package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxIndexDepth is how many image indexes may lie within one another;
	// buildx makes two.
	maxIndexDepth = 3
	// maxIndexReads bounds what one image index can make imgfs fetch before
	// it has chosen.
	maxIndexReads = 64
	// maxIndexEntries bounds the entries of all image indexes of an image. In
	// memory each takes up to fifty times its JSON.
	maxIndexEntries = 16 << 10
)

// An indexWalk gathers the images of an image index.
type indexWalk struct {
	opener  *opener
	want    wish
	reads   int
	entries int
	// fit holds the manifests that state a platform that matches, silent
	// those that do not say enough to tell, and there all platforms stated.
	fit, silent []found
	there       []found
	// untold says that nothing says the platform of one of a catalog's entries, and
	// unsaid holds those of image indexes that are such.
	untold bool
	unsaid []found
	// other says what an entry is that is no image, the first that is known.
	other string
	known bool
	// from is which of a catalog's entries is gathered.
	from int
	// absent is about the first entry that a catalog does not have the content of.
	// It need not have what is not used of it.
	absent error
}

// A found is a manifest of an image index.
type found struct {
	ocispec.Descriptor
	from int  // see indexWalk
	own  bool // it is a catalog's entry, and not one of an index within it
}

// choose returns the manifest of index that is for the platform wanted. It
// orders as containerd does: an exact match, then those that the platform
// can also run, the index's own order deciding between equals; a manifest
// whose platform only its config states comes later, and one of which nothing says
// anything last, as skopeo has it; if a platform was asked for, only where no other
// says what it is for.
func (o *opener) choose(ctx context.Context, index []byte, want wish) (ocispec.Descriptor, error) {
	w := &indexWalk{opener: o, want: want}
	if err := w.gather(ctx, index, 1); err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(w.fit) == 0 {
		if err := w.readSilent(ctx); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	best, err := w.best(ctx)
	return best.Descriptor, err
}

// best returns the first of the manifests that fit best. One without a platform is
// not known to fit.
func (w *indexWalk) best(ctx context.Context) (found, error) {
	switch {
	case len(w.fit) > 0:
		return w.bestImage(ctx)
	case len(w.unsaid) > 0 && (len(w.there) == 0 || !w.want.asked):
		return w.unsaid[0], nil
	case len(w.there) == 0 && w.absent != nil:
		return found{}, w.absent
	}
	var there []ocispec.Platform
	for _, f := range w.there {
		there = append(there, *f.Platform)
	}
	refused := w.want.refuse(there)
	switch {
	case w.entries == 0:
		refused.Instead = ": the image index is empty"
	case w.other != "":
		refused.Instead = ": the image index lists " + w.other
	}
	return found{}, w.opener.fail("", refused)
}

// bestImage returns the first of the manifests that fit best, without those that turn
// out to be no images, if there are others. The index manifest of SOCI states the
// platform of its image, and skopeo 1.9 loses the artifactType that tells them apart.
func (w *indexWalk) bestImage(ctx context.Context) (found, error) {
	fit := slices.Clone(w.fit)
	slices.SortStableFunc(fit, w.compare)
	if !slices.ContainsFunc(fit, func(f found) bool { return f.Digest != fit[0].Digest }) {
		return fit[0], nil
	}
	for _, f := range fit {
		if err := w.spend(); err != nil {
			return found{}, err
		}
		content, k, _, err := w.opener.document(ctx, &f.Descriptor)
		if err != nil {
			return found{}, err
		}
		w.opener.kept[f.Digest] = content
		m, err := readManifest(content)
		if k != kindManifest || err != nil || !isArtifact(m) {
			return f, nil
		}
	}
	return fit[0], nil
}

// shared tells whether two entries of a catalog lead to images for one platform.
func (w *indexWalk) shared() bool {
	from := make(map[string]int)
	for _, f := range w.there {
		name := formatPlatform(*f.Platform)
		if i, ok := from[name]; ok && i != f.from {
			return true
		}
		from[name] = f.from
	}
	return false
}

// compare orders manifests that fit, the better one first. Of equals one that is
// called an artifact comes last.
func (w *indexWalk) compare(a, b found) int {
	if c := w.want.compare(*a.Platform, *b.Platform); c != 0 {
		return c
	}
	return cmp.Compare(min(len(a.ArtifactType), 1), min(len(b.ArtifactType), 1))
}

// gather sorts the entries of an image index into w, and those of the
// indexes within it.
func (w *indexWalk) gather(ctx context.Context, content []byte, depth int) error {
	var index struct {
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil {
		return w.opener.fail("image index", fmt.Errorf("%w: %w", ErrUnsupported, JSONError(err)))
	}
	return eachDescriptor("manifests", index.Manifests, func(desc ocispec.Descriptor, err error) error {
		if err != nil {
			return w.opener.fail("image index", err)
		}
		return w.sort(ctx, desc, depth)
	})
}

// sort puts an entry where it belongs, or those of the index that it is.
func (w *indexWalk) sort(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if w.entries++; w.entries > maxIndexEntries {
		return w.opener.fail("image index", fmt.Errorf("%w: more than %d entries, with those of indexes within it", ErrUnsupported, maxIndexEntries))
	}
	if !isImageEntry(desc) {
		if words, known := describeEntry(desc); w.other == "" || known && !w.known {
			w.other, w.known = words, known
		}
		return nil
	}
	if c, ok := w.opener.src.(Catalog); ok && !c.Has(desc.Digest) {
		w.absent = cmp.Or(w.absent, w.opener.fail("manifest "+shown(desc.Digest.String()), fmt.Errorf("%w: the image index lists it, and it is not there", ErrNotFound)))
		return nil
	}
	if p := desc.Platform; p != nil && !says(*p) {
		desc.Platform = nil // it says nothing
	}
	fits := true
	if desc.Platform != nil {
		w.there = append(w.there, found{desc, w.from, depth == 0})
		fits = w.want.match(*desc.Platform)
		if !fits && !w.want.unsaid(*desc.Platform) {
			return nil
		}
	}
	switch {
	case kindOf(bareMediaType(desc.MediaType)) == kindIndex:
		return w.descend(ctx, desc, depth+1)
	case desc.Platform != nil && fits:
		w.fit = append(w.fit, found{desc, w.from, depth == 0})
	default:
		w.silent = append(w.silent, found{desc, w.from, depth == 0})
	}
	return nil
}

// descend gathers the entries of the index that desc describes.
func (w *indexWalk) descend(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if depth > maxIndexDepth {
		return w.opener.fail("image index "+desc.Digest.String(), fmt.Errorf("%w: image indexes lie within one another more than %d deep", ErrUnsupported, maxIndexDepth))
	}
	if err := w.spend(); err != nil {
		return err
	}
	content, k, _, err := w.opener.document(ctx, &desc)
	if err != nil {
		return err
	}
	if k != kindIndex {
		return w.opener.fail("image index "+desc.Digest.String(), fmt.Errorf("%w: it is an image manifest", ErrUnsupported))
	}
	return w.gather(ctx, content, depth)
}

// readSilent asks the configs of the manifests that do not say enough of their
// platform. Artifacts among them are none of our business. What had no media type
// may be an image index.
func (w *indexWalk) readSilent(ctx context.Context) error {
	for i := 0; i < len(w.silent); i++ {
		f := w.silent[i]
		if err := w.spend(); err != nil {
			return err
		}
		content, k, _, err := w.opener.document(ctx, &f.Descriptor)
		if err == nil && k == kindIndex {
			w.from = f.from
			if err := w.gather(ctx, content, maxIndexDepth); err != nil {
				return err
			}
			continue
		}
		var p *ocispec.Platform
		var silent bool
		if err == nil {
			p, silent, err = w.opener.platformOf(ctx, content)
		}
		if _, ok := w.opener.src.(Catalog); ok && errors.Is(err, ErrNotFound) {
			w.absent = cmp.Or(w.absent, err)
			continue
		}
		if err != nil {
			return err
		}
		if p == nil {
			w.untold = w.untold || f.own
			if silent && f.Platform == nil && !f.own {
				w.unsaid = append(w.unsaid, f)
			}
			continue
		}
		if stated := f.Platform; stated != nil {
			// The entry's word counts where it says something.
			version, features := p.OSVersion, p.OSFeatures
			if p = stated; p.OSVersion == "" {
				p.OSVersion = version
			}
			if len(p.OSFeatures) == 0 {
				p.OSFeatures = features
			}
		}
		f.Platform = p
		w.there = append(w.there, f)
		if w.want.match(*p) {
			w.fit = append(w.fit, f)
		}
	}
	return nil
}

func (w *indexWalk) spend() error {
	if w.reads++; w.reads > maxIndexReads {
		return w.opener.fail("", fmt.Errorf("%w: the image index has more than %d entries without a platform or indexes within it", ErrUnsupported, maxIndexReads))
	}
	return nil
}

// isImageEntry tells whether an entry of an image index may lead to an image.
// BuildKit lists attestations beside the images, for platform
// unknown/unknown.
func isImageEntry(desc ocispec.Descriptor) bool {
	if desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		return false
	}
	if p := desc.Platform; p != nil && isUnknown(*p) {
		return false
	}
	k := kindOf(bareMediaType(desc.MediaType))
	return k == kindIndex || k == kindManifest || sayNothing(bareMediaType(desc.MediaType))
}

// describeEntry says in words what an entry is that isImageEntry refuses, and
// whether that is known.
func describeEntry(desc ocispec.Descriptor) (words string, known bool) {
	for _, t := range []string{desc.ArtifactType, desc.MediaType} {
		if words := describeArtifact(t); words != notAnImage {
			return words, true
		}
	}
	if k := kindOf(desc.MediaType); k == kindIndex || k == kindManifest {
		return "an attestation", true
	}
	return "a " + quote(desc.MediaType), false
}
