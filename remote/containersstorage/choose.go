package containersstorage

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// minID is how much of an ID must be given at least.
const minID = 3

// A wanted image is one that a name says.
type wanted struct {
	text string
	name string        // with a tag or not, "" for none
	id   string        // or the beginning of one
	dgst digest.Digest // of a manifest
}

// parseWanted reads the name of an image as podman does: NAME[:TAG], NAME@sha256:…,
// @ID, ID, sha256:ID or @sha256:….
func parseWanted(text string) wanted {
	w := wanted{text: text, name: text}
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		w.name = text[:at]
		if d := digest.Digest(text[at+1:]); d.Validate() == nil {
			w.dgst = d
		} else {
			w.id = text[at+1:]
		}
	} else if id, ok := strings.CutPrefix(text, "sha256:"); ok && isHex(id) {
		w.name, w.id = "", id
	}
	return w
}

func isHex(s string) bool { return len(s) >= minID && strings.Trim(s, "0123456789abcdef") == "" }

// choose returns the image that is wanted, and the reference by whose name it was found,
// "" for one that was found by its ID.
func (w wanted) choose(images []*imageRecord) (*imageRecord, string, error) {
	switch {
	case w.id != "":
		return w.one(filter(images, func(img *imageRecord) bool { return isHex(w.id) && strings.HasPrefix(img.ID, w.id) }), "", images)
	case w.dgst != "":
		found := filter(images, func(img *imageRecord) bool { return img.has(w.dgst) && w.repository(img) })
		if len(found) == 0 && w.name == "" {
			found = filter(images, func(img *imageRecord) bool { return img.ID == w.dgst.Encoded() })
		}
		return w.one(found[:min(len(found), 1)], w.name, images)
	}
	for _, name := range w.candidates() {
		if found := filter(images, func(img *imageRecord) bool { return img.named(name) }); len(found) > 0 {
			return found[0], name, nil // a name is moved from image to image
		}
	}
	// As the end of a name or its tag, as in layouts and archives.
	short := ""
	found := filter(images, func(img *imageRecord) bool {
		i := slices.IndexFunc(img.Names, func(full string) bool { return remote.IsShortFor(w.name, full) })
		if i >= 0 {
			short = img.Names[i]
		}
		return i >= 0
	})
	if len(found) == 0 && isHex(w.name) {
		found, short = filter(images, func(img *imageRecord) bool { return strings.HasPrefix(img.ID, w.name) }), ""
	}
	return w.one(found, short, images)
}

// candidates returns the full names that a name can be short for, in podman's order.
func (w wanted) candidates() []string {
	ref, err := remote.ParseReference(w.name)
	if err != nil {
		return nil
	}
	full := []string{ref.String()}
	if first, _, slash := strings.Cut(w.name, "/"); slash && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return full
	}
	if local, err := remote.ParseReference("localhost/" + w.name); err == nil {
		full = slices.Insert(full, 0, local.String())
	}
	return full
}

// one returns the only one of those found.
func (w wanted) one(found []*imageRecord, name string, all []*imageRecord) (*imageRecord, string, error) {
	switch len(found) {
	case 0:
		return nil, "", &remote.NameError{Image: w.text, Names: names(all)}
	case 1:
		return found[0], name, nil
	}
	e := &remote.AmbiguousError{Image: w.text}
	for _, img := range found {
		e.Named = append(e.Named, img.called())
	}
	return nil, "", e
}

// filter returns the images that f returns true of, each once: of several stores the
// first that has it counts.
func filter(images []*imageRecord, f func(*imageRecord) bool) []*imageRecord {
	var some []*imageRecord
	known := make(map[string]bool)
	for _, img := range images {
		if f(img) && !known[img.ID] {
			known[img.ID] = true
			some = append(some, img)
		}
	}
	return some
}

// has tells whether a digest is that of the image's manifest, or of one of an image
// index that is stored with it.
func (img *imageRecord) has(d digest.Digest) bool {
	if img.Digest == d {
		return true
	}
	for name, got := range img.Digests {
		if got == d && strings.HasPrefix(name, "manifest") {
			return true
		}
	}
	return false
}

// named tells whether an image has a name.
func (img *imageRecord) named(full string) bool {
	return slices.ContainsFunc(img.Names, func(name string) bool { return name == full || remote.Canonical(name) == full })
}

// repository tells whether an image has a name of the repository that is wanted, whatever
// its tag. An image loses its name when another gets it, so one without names fits too.
func (w wanted) repository(img *imageRecord) bool {
	if w.name == "" || len(img.Names) == 0 {
		return true
	}
	for _, candidate := range w.candidates() {
		want, _ := remote.ParseReference(candidate)
		if slices.ContainsFunc(img.Names, func(name string) bool {
			ref, err := remote.ParseReference(name)
			return err == nil && ref.Name() == want.Name()
		}) {
			return true
		}
	}
	return false
}

// called returns by what an image can be named.
func (img *imageRecord) called() string {
	if len(img.Names) > 0 {
		return img.Names[0]
	}
	return img.ID[:12]
}

// names returns by what all images can be named.
func names(images []*imageRecord) []string {
	var all []string
	for _, img := range filter(images, func(*imageRecord) bool { return true }) {
		if len(img.Names) == 0 {
			all = append(all, img.called())
		}
		all = append(all, img.Names...)
	}
	return all
}
