package ocilayout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// containerdName is the annotation in which containerd, docker and nerdctl write
// an image's full name. Their org.opencontainers.image.ref.name is its tag alone.
const containerdName = "io.containerd.image.name"

// choose returns the entries of index.json that image names; see Open. full says
// that image may be part of several full names.
func choose(entries []ocispec.Descriptor, image string) (chosen []ocispec.Descriptor, full bool, err error) {
	switch {
	case len(entries) == 0 && image == "":
		return nil, false, fmt.Errorf("%w: the layout is empty", remote.ErrNotFound)
	case image == "":
		return entries, false, nil
	}
	chosen = filter(entries, func(desc ocispec.Descriptor) bool { return slices.Contains(namesOf(desc), image) })
	if len(chosen) > 0 {
		return chosen, true, nil
	}
	if wanted, ok := strings.CutPrefix(image, "@"); ok {
		for i, desc := range entries {
			if desc.Digest == digest.Digest(wanted) || strconv.Itoa(i) == wanted {
				return entries[i : i+1], false, nil
			}
		}
	} else if chosen = filter(entries, func(desc ocispec.Descriptor) bool { return remote.IsShortFor(image, fullName(desc)) }); len(chosen) > 0 {
		return chosen, true, nil
	}
	return nil, false, &remote.NameError{Image: image, Names: list(entries)}
}

func filter(entries []ocispec.Descriptor, f func(ocispec.Descriptor) bool) []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(entries), func(desc ocispec.Descriptor) bool { return !f(desc) })
}

// candidates returns entries, each digest once, with their full names if full.
func candidates(entries []ocispec.Descriptor, full bool) []remote.Candidate {
	var all []remote.Candidate
	at := make(map[digest.Digest]int)
	type naming struct {
		image int
		name  string
	}
	known := make(map[naming]bool)
	for _, desc := range entries {
		i, ok := at[desc.Digest]
		if !ok {
			i = len(all)
			at[desc.Digest] = i
			all = append(all, remote.Candidate{Descriptor: desc})
		}
		if desc.Platform != nil {
			all[i].Platforms = append(all[i].Platforms, *desc.Platform)
		}
		if name := remote.Canonical(fullName(desc)); full && name != "" && !known[naming{i, name}] {
			known[naming{i, name}] = true
			all[i].Names = append(all[i].Names, name)
		}
	}
	return all
}

// namesOf returns the names that an entry has, the fuller one first.
func namesOf(desc ocispec.Descriptor) []string {
	var names []string
	for _, key := range []string{containerdName, ocispec.AnnotationRefName} {
		if name := desc.Annotations[key]; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// fullName returns the name of an entry that has a repository, as containerd writes
// it or as podman, buildah and nerdctl do in place of a tag. It is "" if there is
// none.
func fullName(desc ocispec.Descriptor) string {
	if name := desc.Annotations[containerdName]; name != "" {
		return name
	}
	if name := desc.Annotations[ocispec.AnnotationRefName]; strings.ContainsAny(name, "/:") {
		return name
	}
	return ""
}

// ambiguous returns the error for a location that means several images, those of
// entries. Where a name says no more than the location does the digests name them.
func ambiguous(at remote.Location, entries []ocispec.Descriptor) error {
	e := &remote.AmbiguousError{Image: at.Image, Named: list(entries)}
	if alike := len(e.Named) == 1; alike || slices.Contains(e.Named, at.Image) {
		for i := range entries {
			if names := namesOf(entries[i]); alike || len(names) > 0 && names[0] == at.Image {
				entries[i].Annotations = nil
			}
		}
		e.Named = list(entries)
	}
	for _, name := range e.Named {
		at.Image = name
		e.Locations = append(e.Locations, at)
	}
	return e
}

// list names entries as they can be chosen, each name once.
func list(entries []ocispec.Descriptor) []string {
	var names []string
	listed := make(map[string]bool)
	for _, desc := range entries {
		name := "@" + desc.Digest.String()
		if all := namesOf(desc); len(all) > 0 {
			name = all[0]
		}
		if !listed[name] {
			listed[name] = true
			names = append(names, name)
		}
	}
	return names
}
