package ocilayout

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// maxNamed is how many images an error lists.
const maxNamed = 32

// choose returns the entry of index.json that image names; see Open.
func choose(entries []ocispec.Descriptor, image string) (ocispec.Descriptor, error) {
	if image == "" {
		return only(entries)
	}
	wanted, at := strings.CutPrefix(image, "@")
	for i, desc := range entries {
		switch {
		case desc.Annotations[ocispec.AnnotationRefName] == image,
			at && desc.Digest == digest.Digest(wanted),
			at && strconv.Itoa(i) == wanted:
			return desc, nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: no image %q; there is %s", remote.ErrNotFound, image, list(entries))
}

// only returns the one image that entries describe, maybe several times.
func only(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	if len(entries) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the layout is empty", remote.ErrNotFound)
	}
	for _, desc := range entries[1:] {
		if desc.Digest != entries[0].Digest {
			return ocispec.Descriptor{}, fmt.Errorf("%w: it names none of several images; there is %s", remote.ErrReference, list(entries))
		}
	}
	return entries[0], nil
}

// list names entries as they can be chosen.
func list(entries []ocispec.Descriptor) string {
	if len(entries) == 0 {
		return "none"
	}
	var names []string
	for i, desc := range entries {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("%d more", len(entries)-i))
			break
		}
		tag := desc.Annotations[ocispec.AnnotationRefName]
		if tag == "" {
			tag = "@" + desc.Digest.String()
		}
		names = append(names, fmt.Sprintf("%.200q", tag))
	}
	return strings.Join(names, ", ")
}
