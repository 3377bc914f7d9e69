package dockerarchive

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/remote"
)

// maxConfigs is how many configs are read to choose an image.
const maxConfigs = 64

// An image is one entry of manifest.json.
type image struct {
	Config   string
	RepoTags []string
	Layers   []string

	number int // in manifest.json, from 0
}

// A selector says which image of an archive is wanted.
type selector struct {
	text string
	// ref is set if a reference was given, number if a number was; if
	// neither, the only image is wanted.
	ref    *remote.Reference
	number int
}

func parseSelector(text string) (selector, error) {
	s := selector{text: text, number: -1}
	if text == "" {
		return s, nil
	}
	if digits, ok := strings.CutPrefix(text, "@"); ok {
		n, err := strconv.Atoi(digits)
		if err != nil || n < 0 {
			return s, fmt.Errorf("%w: %q is not @ and the number of an image", remote.ErrReference, text)
		}
		s.number = n
		return s, nil
	}
	ref, err := remote.ParseReference(text)
	if err != nil {
		return s, err
	}
	if ref.Digest != "" {
		return s, fmt.Errorf("%w: %q has a digest; an archive of docker save has only tags", remote.ErrReference, text)
	}
	s.ref = &ref
	return s, nil
}

// repository returns the name that inspect shows.
func (s selector) repository() string {
	if s.ref == nil {
		return ""
	}
	return s.ref.Name()
}

// choose returns the images that are meant, each once and with all of its tags.
func (s selector) choose(images []image) ([]image, error) {
	if len(images) == 0 {
		return nil, fmt.Errorf("%w: manifest.json lists no image", remote.ErrNotFound)
	}
	var chosen []image
	known := make(map[string]int) // by config and layers
	for i, img := range images {
		if s.text != "" && i != s.number && (s.ref == nil || !img.hasTag(*s.ref)) {
			continue
		}
		img.number = i
		what := strings.Join(append([]string{img.Config}, img.Layers...), "\x00")
		if at, ok := known[what]; ok {
			chosen[at].RepoTags = append(chosen[at].RepoTags, img.RepoTags...)
			continue
		}
		known[what] = len(chosen)
		chosen = append(chosen, img)
	}
	if len(chosen) == 0 {
		return nil, &remote.NameError{Image: s.text, Names: names(numbered(images), "")}
	}
	return chosen, nil
}

// numbered returns all images with their places in manifest.json.
func numbered(images []image) []image {
	images = slices.Clone(images)
	for i := range images {
		images[i].number = i
	}
	return images
}

// hasTag tells whether ref is one of the image's tags. Tags that are no
// references are nobody's.
func (img image) hasTag(ref remote.Reference) bool {
	return slices.ContainsFunc(img.RepoTags, func(tag string) bool {
		r, err := remote.ParseReference(tag)
		return err == nil && r == ref
	})
}

// ambiguous returns the error for a location that means several images.
func ambiguous(at remote.Location, images []image) error {
	e := &remote.AmbiguousError{Image: at.Image, Named: names(images, at.Image)}
	for _, name := range e.Named {
		at.Image = name
		e.Locations = append(e.Locations, at)
	}
	return e
}

// names names images as they can be chosen: by those of their tags that are
// references and no other's, which a name that does not tell them apart is none of,
// and else by their number.
func names(images []image, ambiguous string) []string {
	owners := make(map[remote.Reference]int)
	for _, img := range images {
		mine := make(map[remote.Reference]bool)
		for _, tag := range img.RepoTags {
			if ref, err := remote.ParseReference(tag); err == nil && !mine[ref] {
				mine[ref] = true
				owners[ref]++
			}
		}
	}
	if ref, err := remote.ParseReference(ambiguous); err == nil {
		owners[ref]++
	}
	var all []string
	for _, img := range images {
		before := len(all)
		for _, tag := range img.RepoTags {
			if ref, err := remote.ParseReference(tag); err == nil && owners[ref] == 1 {
				all = append(all, tag)
			}
		}
		if len(all) == before {
			all = append(all, fmt.Sprintf("@%d", img.number))
		}
	}
	return all
}
