package dockerarchive

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/remote"
)

// maxNamed is how many images an error lists.
const maxNamed = 32

// An image is one entry of manifest.json.
type image struct {
	Config   string
	RepoTags []string
	Layers   []string
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

// choose returns the image that is wanted.
func (s selector) choose(images []image) (image, error) {
	switch {
	case s.number >= 0 && s.number < len(images):
		return images[s.number], nil
	case s.ref != nil:
		for _, img := range images {
			if img.hasTag(*s.ref) {
				return img, nil
			}
		}
	case s.text == "" && len(images) == 1:
		return images[0], nil
	case s.text == "" && len(images) > 1:
		return image{}, fmt.Errorf("%w: it names none of %d images; there is %s", remote.ErrReference, len(images), list(images))
	}
	if len(images) == 0 {
		return image{}, fmt.Errorf("%w: manifest.json lists no image", remote.ErrNotFound)
	}
	return image{}, fmt.Errorf("%w: no image %q; there is %s", remote.ErrNotFound, s.text, list(images))
}

// hasTag tells whether ref is one of the image's tags. Tags that are no
// references are nobody's.
func (img image) hasTag(ref remote.Reference) bool {
	for _, tag := range img.RepoTags {
		if r, err := remote.ParseReference(tag); err == nil && r == ref {
			return true
		}
	}
	return false
}

// list names images as they can be chosen.
func list(images []image) string {
	var names []string
	for i, img := range images {
		if len(img.RepoTags) == 0 {
			names = append(names, fmt.Sprintf("@%d", i))
		}
		for _, tag := range img.RepoTags {
			names = append(names, fmt.Sprintf("%.200q", tag))
		}
	}
	if more := len(names) - maxNamed; more > 0 {
		names = append(names[:maxNamed], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
