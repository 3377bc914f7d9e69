package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/printable"
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
	// maxPlatformsNamed bounds the list in an error.
	maxPlatformsNamed = 32
)

// A wish is the platform that the user wants.
type wish struct {
	platforms.MatchComparer
	name string
	// asked tells the user's own choice from the host's platform.
	asked bool
}

// parseWish reads a platform as containerd does: "linux/arm/v7", "arm64",
// or "" for the host's.
func parseWish(platform string) (wish, error) {
	spec := platforms.DefaultSpec()
	if platform != "" {
		var err error
		if spec, err = platforms.Parse(platform); err != nil {
			return wish{}, fmt.Errorf("%w: %s is not one such as linux/arm64 or linux/arm/v7", ErrPlatform, quote(platform))
		}
	}
	return wish{
		MatchComparer: platforms.Only(spec),
		name:          platforms.Format(platforms.Normalize(spec)),
		asked:         platform != "",
	}, nil
}

// refuse returns ErrPlatform with the platforms that there are.
func (w wish) refuse(there []ocispec.Platform) error {
	var names []string
	named := make(map[string]bool)
	for _, p := range there {
		if name := platforms.Format(platforms.Normalize(p)); !named[name] {
			named[name] = true
			names = append(names, shown(name))
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: %s; there is no image for any platform", ErrPlatform, w.name)
	}
	if more := len(names) - maxPlatformsNamed; more > 0 {
		names = append(names[:maxPlatformsNamed], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%w: %s; there is %s", ErrPlatform, w.name, strings.Join(names, ", "))
}

// shown quotes s if it could do something to a terminal, and shortens it.
func shown(s string) string {
	if !printable.Harmless(s) || len(s) > 100 {
		return quote(s)
	}
	return s
}

// An indexWalk gathers the images of an image index.
type indexWalk struct {
	opener  *opener
	want    wish
	reads   int
	entries int
	// fit holds the manifests that state a platform that matches, silent
	// those that state none, and there all platforms stated.
	fit, silent []ocispec.Descriptor
	there       []ocispec.Platform
}

// choose returns the manifest of index that is for the platform wanted. It
// orders as containerd does: an exact match, then those that the platform
// can also run, the index's own order deciding between equals; a manifest
// whose platform only its config states comes last.
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
	if len(w.fit) == 0 {
		return ocispec.Descriptor{}, o.fail("", want.refuse(w.there))
	}
	return slices.MinFunc(w.fit, func(a, b ocispec.Descriptor) int {
		switch {
		case want.Less(*a.Platform, *b.Platform):
			return -1
		case want.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	}), nil
}

// gather sorts the entries of an image index into w, and those of the
// indexes within it.
func (w *indexWalk) gather(ctx context.Context, content []byte, depth int) error {
	var index struct {
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil {
		return w.opener.fail("image index", fmt.Errorf("%w: %w", ErrUnsupported, jsonError(err)))
	}
	return eachDescriptor("manifests", index.Manifests, func(desc ocispec.Descriptor, err error) error {
		if err != nil {
			return w.opener.fail("image index", err)
		}
		if w.entries++; w.entries > maxIndexEntries {
			return w.opener.fail("image index", fmt.Errorf("%w: more than %d entries, with those of indexes within it", ErrUnsupported, maxIndexEntries))
		}
		return w.sort(ctx, desc, depth)
	})
}

// sort puts an entry where it belongs, or those of the index that it is.
func (w *indexWalk) sort(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if !isImageEntry(desc) {
		return nil
	}
	if desc.Platform != nil {
		w.there = append(w.there, *desc.Platform)
		if !w.want.Match(*desc.Platform) {
			return nil
		}
	}
	switch {
	case kindOf(desc.MediaType) == kindIndex:
		return w.descend(ctx, desc, depth+1)
	case desc.Platform != nil:
		w.fit = append(w.fit, desc)
	default:
		w.silent = append(w.silent, desc)
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
	content, k, _, err := w.opener.document(ctx, desc)
	if err != nil {
		return err
	}
	if k != kindIndex {
		return w.opener.fail("image index "+desc.Digest.String(), fmt.Errorf("%w: it is an image manifest", ErrUnsupported))
	}
	return w.gather(ctx, content, depth)
}

// readSilent asks the configs of the manifests that state no platform.
// Artifacts among them are none of our business.
func (w *indexWalk) readSilent(ctx context.Context) error {
	for _, desc := range w.silent {
		if err := w.spend(); err != nil {
			return err
		}
		p, err := w.opener.platformOf(ctx, desc)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		w.there = append(w.there, *p)
		if w.want.Match(*p) {
			desc.Platform = p
			w.fit = append(w.fit, desc)
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
	if p := desc.Platform; p != nil && p.OS == "unknown" && p.Architecture == "unknown" {
		return false
	}
	k := kindOf(desc.MediaType)
	return k == kindIndex || k == kindManifest || sayNothing(desc.MediaType)
}
