package podstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Errors of Find. They come wrapped, with what was looked for.
var (
	// ErrNoImage: the store has no such image.
	ErrNoImage = errors.New("no such image in the store")
	// ErrAmbiguous: several images have such a name or ID.
	ErrAmbiguous = errors.New("more than one image is called so")
)

// minID is how much of an ID must be given at least.
const minID = 3

// Find returns the image that is called so: by one of the full names that are given, or by
// its ID or the beginning of that.
func Find(images []*Image, word string, names ...string) (*Image, error) {
	for _, name := range append([]string{word}, names...) {
		for _, img := range images {
			if name != "" && (slices.Contains(img.Names, name) || img.Source == name) {
				return img, nil
			}
		}
	}
	id := strings.TrimPrefix(word, "sha256:")
	var found []*Image
	for _, img := range images {
		if len(id) >= minID && strings.HasPrefix(img.ID, id) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%s: %w", word, ErrNoImage)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%s: %w", word, ErrAmbiguous)
}
