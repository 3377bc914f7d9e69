package dockerarchive

import (
	"errors"
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
	// neither, all images are wanted.
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

// choose returns the images that are meant, each once and with all of its tags, and
// the repository of the name that means them, if one does. A name that is short for
// those of images that differ means all of these, whatever they are for: then the
// error is errSeveral.
func (s selector) choose(images []image) (chosen []image, repository string, err error) {
	if len(images) == 0 {
		return nil, "", fmt.Errorf("%w: manifest.json lists no image", remote.ErrNotFound)
	}
	if s.ref == nil {
		chosen = filter(images, func(img image) bool { return s.text == "" || img.number == s.number })
	} else if chosen = filter(images, func(img image) bool { return img.hasTag(*s.ref) }); len(chosen) > 0 {
		return chosen, s.ref.Name(), nil
	} else {
		chosen, repository, err = s.short(images)
	}
	if len(chosen) == 0 {
		return nil, "", &remote.NameError{Image: s.text, Names: names(filter(images, func(image) bool { return true }), "")}
	}
	return chosen, repository, err
}

// errSeveral: a name is short for several.
var errSeveral = errors.New("several names")

// short returns the images that have a name that the selector's is short for.
func (s selector) short(images []image) (chosen []image, repository string, err error) {
	chosen = filter(images, func(img image) bool {
		return slices.ContainsFunc(img.RepoTags, func(tag string) bool { return remote.IsShortFor(s.text, tag) })
	})
	named := make(map[remote.Reference][]int) // which of them have a name
	for i, img := range chosen {
		for _, tag := range img.RepoTags {
			ref, err := remote.ParseReference(tag)
			if err != nil || !remote.IsShortFor(s.text, tag) {
				continue
			}
			if repository == "" {
				repository = ref.Name()
			}
			if all := named[ref]; len(all) == 0 || all[len(all)-1] != i {
				named[ref] = append(all, i)
			}
		}
	}
	for _, all := range named {
		if len(all) != len(chosen) {
			return chosen, "", errSeveral
		}
	}
	return chosen, repository, nil
}

// filter returns the images that f returns true of, each once and with all of its
// tags there, and with their places in manifest.json.
func filter(images []image, f func(image) bool) []image {
	var some []image
	known := make(map[string]int) // by config and layers
	for i, img := range images {
		img.number = i
		if !f(img) {
			continue
		}
		what := strings.Join(append([]string{img.Config}, img.Layers...), "\x00")
		if at, ok := known[what]; ok {
			some[at].RepoTags = append(some[at].RepoTags, img.RepoTags...)
			continue
		}
		known[what] = len(some)
		img.RepoTags = slices.Clip(img.RepoTags) // what is added must not change the list
		some = append(some, img)
	}
	return some
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
