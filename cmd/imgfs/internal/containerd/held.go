package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxDocument is how many bytes a manifest or an image index may have.
	maxDocument = 8 << 20
	// maxDepth is how deep image indexes may lie in each other, and maxManifests how many
	// of an image's manifests are looked at.
	maxDepth, maxManifests = 4, 1024
	// maxBlob is how many bytes a blob may be said to have, so that sums fit.
	maxBlob = math.MaxInt64 >> 16
)

// A NoImageError says that containerd has no image of a name in a namespace, or in any.
type NoImageError struct{ Name, Namespace string }

func (e *NoImageError) Error() string {
	if e.Namespace == "" {
		return fmt.Sprintf("containerd has no image %s in any of its namespaces", printable.Name(e.Name))
	}
	return fmt.Sprintf("containerd has no image %s in its namespace %s", printable.Name(e.Name), printable.Name(e.Namespace))
}

// A held image is one that containerd has, in one namespace.
type held struct {
	name   string
	target digest.Digest
}

// find finds an image by the name that containerd has it under, by a shorter one as docker
// completes it, or by the digest of what the name means.
func (c *Client) find(ctx context.Context, name string) (*held, error) {
	for _, full := range slices.Compact([]string{name, remote.Canonical(name)}) {
		if full == "" {
			continue
		}
		var found *imagesapi.Image
		err := c.call(ctx, func(ctx context.Context) error {
			got, err := c.images.Get(ctx, &imagesapi.GetImageRequest{Name: full})
			found = got.GetImage()
			if isNotFound(err) {
				return nil
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if found != nil {
			return heldOf(found)
		}
	}
	if digest.Digest(name).Validate() == nil {
		all, err := c.list(ctx, "target.digest=="+name)
		if err != nil {
			return nil, err
		}
		if len(all) > 0 {
			return all[0], nil
		}
	}
	namespace, _ := namespaces.Namespace(ctx)
	return nil, &NoImageError{Name: name, Namespace: namespace}
}

// NamespacesOf returns the namespaces that have an image of a name.
func (c *Client) NamespacesOf(ctx context.Context, name string) (names []string, err error) {
	all, err := c.Namespaces(ctx)
	for _, ns := range all {
		_, err := c.find(namespaces.WithNamespace(ctx, ns), name)
		if missing := (*NoImageError)(nil); errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		names = append(names, ns)
	}
	return names, err
}

// list returns the images that a filter takes, or all.
func (c *Client) list(ctx context.Context, filters ...string) (all []*held, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		got, err := c.images.List(ctx, &imagesapi.ListImagesRequest{Filters: filters})
		for _, i := range got.GetImages() {
			if h, err := heldOf(i); err == nil {
				all = append(all, h)
			}
		}
		return err
	})
	return all, err
}

func heldOf(i *imagesapi.Image) (*held, error) {
	d := digest.Digest(i.GetTarget().GetDigest())
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("image %s of containerd: %w", printable.Name(i.GetName()), err)
	}
	return &held{name: i.GetName(), target: d}, nil
}

// A document is what is read of a manifest, or of an image index.
type document struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// A manifest is one that containerd has, of one platform.
type manifest struct {
	digest digest.Digest
	listed *ocispec.Descriptor  // as an image index lists it; nil: none does
	labels map[string]string    // that containerd keeps with it
	parts  []ocispec.Descriptor // config and layers, as they stand in it
}

// has reports whether a blob is one of the parts.
func (m *manifest) has(d digest.Digest) bool {
	return slices.ContainsFunc(m.parts, func(p ocispec.Descriptor) bool { return p.Digest == d })
}

// manifests returns those manifests of an image that containerd has.
func (c *Client) manifests(ctx context.Context, img *held) (all []*manifest, err error) {
	seen := make(map[digest.Digest]bool)
	var walk func(d digest.Digest, listed *ocispec.Descriptor, depth int) error
	walk = func(d digest.Digest, listed *ocispec.Descriptor, depth int) error {
		if seen[d] || depth > maxDepth || len(seen) == maxManifests {
			return nil
		}
		seen[d] = true
		doc, info, err := c.document(ctx, d)
		if errdefs.IsNotFound(err) {
			return nil // of a platform that was not pulled
		}
		if err != nil {
			return err
		}
		if doc.Config != nil || len(doc.Layers) > 0 {
			m := &manifest{digest: d, listed: listed, labels: info.Labels}
			if doc.Config != nil {
				m.parts = append(m.parts, *doc.Config)
			}
			m.parts = append(m.parts, doc.Layers...)
			all = append(all, m)
		}
		for _, child := range doc.Manifests {
			if err := walk(child.Digest, &child, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(img.target, nil, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", printable.Name(img.name), err)
	}
	return all, nil
}

// attests is the annotation by which a manifest in an image index says what it attests
// something of, as BuildKit makes them.
const attests = "vnd.docker.reference.digest"

// choose returns those of an image's manifests that are for a platform, as remote.Open has
// it, and what attests something of them. If none is named they are those that are known,
// or else the ones for this machine. Clients of containerd 2 keep the manifests of all
// platforms, and fetch the layers of one.
func choose(all []*manifest, platform string, known func(digest.Digest) bool) (chosen []*manifest, err error) {
	var listed []*manifest // of those platforms choose
	var platforms []ocispec.Platform
	wanted := make(map[digest.Digest]bool)
	for _, m := range all {
		switch {
		case m.listed == nil || platform == "" && known(m.digest):
			wanted[m.digest] = true
		case m.listed.Annotations[attests] == "":
			listed = append(listed, m)
			var p ocispec.Platform
			if m.listed.Platform != nil {
				p = *m.listed.Platform
			}
			platforms = append(platforms, p)
		}
	}
	if len(wanted) == 0 {
		best, err := remote.BestPlatform(platform, platforms)
		if err != nil {
			return nil, err
		}
		for _, i := range best {
			wanted[listed[i].digest] = true
		}
	}
	for _, m := range all {
		if wanted[m.digest] || m.listed != nil && wanted[digest.Digest(m.listed.Annotations[attests])] {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// document reads a manifest, or an image index, that containerd has. The error is that of
// errdefs if it has not.
func (c *Client) document(ctx context.Context, d digest.Digest) (doc document, info content.Info, err error) {
	var text []byte
	err = c.call(ctx, func(ctx context.Context) error {
		if info, err = c.content.Info(ctx, d); err != nil {
			return err
		}
		if info.Size > maxDocument {
			return nil
		}
		text, err = content.ReadBlob(ctx, c.content, ocispec.Descriptor{Digest: d})
		return err
	})
	switch {
	case err != nil:
		return doc, info, err
	case info.Size > maxDocument:
		return doc, info, fmt.Errorf("manifest %s: it has %d bytes, more than %d", d, info.Size, maxDocument)
	case d.Algorithm().FromBytes(text) != d:
		return doc, info, fmt.Errorf("manifest %s: what containerd has of it is something else", d)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return doc, info, fmt.Errorf("manifest %s: %w", d, remote.JSONError(err))
	}
	for _, list := range [][]ocispec.Descriptor{doc.Layers, doc.Manifests, configOf(doc)} {
		for _, part := range list {
			if err := part.Digest.Validate(); err != nil {
				return doc, info, fmt.Errorf("manifest %s: digest %.100q in it: %w", d, part.Digest, err)
			}
			if part.Size < 0 || part.Size > maxBlob {
				return doc, info, fmt.Errorf("manifest %s: %s is said to have %d bytes", d, part.Digest, part.Size)
			}
		}
	}
	return doc, info, nil
}

func configOf(doc document) []ocispec.Descriptor {
	if doc.Config == nil {
		return nil
	}
	return []ocispec.Descriptor{*doc.Config}
}

// hold has a manifest refer to all of its parts, as containerd's garbage collector looks
// for it. A client that pulls does so too, but for the layers where it is told to discard
// what was unpacked.
func (c *Client) hold(ctx context.Context, m *manifest) error {
	refers := make(map[string]bool)
	for _, to := range m.labels {
		refers[to] = true
	}
	if !slices.ContainsFunc(m.parts, func(p ocispec.Descriptor) bool { return !refers[p.Digest.String()] }) {
		return nil
	}
	children := func(context.Context, ocispec.Descriptor) ([]ocispec.Descriptor, error) { return m.parts, nil }
	return c.call(ctx, func(ctx context.Context) error {
		_, err := images.SetChildrenLabels(c.content, images.HandlerFunc(children))(ctx, ocispec.Descriptor{Digest: m.digest})
		return err
	})
}
