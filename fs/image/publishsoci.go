package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/registry"
)

// sociSuffix is what the tag of an image with a SOCI index has behind that of the image.
const sociSuffix = "-soci"

// PublishSOCI puts an image with a SOCI index of version 2 into the image's own repository:
// a new manifest with the same config and layers, an index of the layers, and an image
// index with both, under the image's tag with -soci behind it. It reads each layer once
// for that, what the cache lacks from the registry. A layer that SOCI has no ztocs for, as
// one compressed by zstd, has no part in the index. It returns the reference of the new image and what was made of each
// layer, the base first. Errors are as those of Publish.
func (l *Layers) PublishSOCI(ctx context.Context, version string) (name string, made []indexrepo.Result, err error) {
	r := l.from
	to, ref, err := r.publishSOCITo()
	if err != nil {
		return "", nil, err
	}
	ztocs := make(map[digest.Digest][]byte)
	for _, layer := range distinct(l.all) {
		z, err := layer.ztoc(ctx)
		if err != nil {
			return "", nil, layerError(layer.Digest(), err)
		}
		if z != nil {
			ztocs[layer.Digest()] = z
			made = append(made, indexrepo.Result{
				Description: indexrepo.Description{Layer: layer.Digest(), Codec: layer.Index.Codec().String()},
				Bytes:       int64(len(z)),
			})
		}
	}
	if len(made) == 0 {
		return "", nil, fmt.Errorf("%s: %w: SOCI can index none of its layers; it takes tars as they are and in gzip", r.Name(), ErrNotPublished)
	}
	converted, err := soci.Convert(soci.Source{Manifest: r.Manifest, Platform: r.Platform, Ztocs: ztocs, Tool: version})
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", r.Name(), err)
	}
	ref.Tag += sociSuffix
	was, err := to.ResolveTag(ctx, ref.Tag)
	if err != nil && !errors.Is(err, remote.ErrNotFound) {
		return "", nil, r.advisePush(to, err)
	}
	// What its tag is to name may be there, and not all that it needs.
	if err := putSOCI(ctx, to, converted, ref.Tag); err != nil {
		return "", nil, r.advisePush(to, err)
	}
	top := converted.Manifests[len(converted.Manifests)-1].Descriptor
	for i := range made {
		made[i].Pushed = was.Digest != top.Digest
	}
	return ref.String(), made, nil
}

// CheckPublishSOCI returns an error if PublishSOCI cannot publish anything, whatever the
// image's layers are. Nothing is asked of a registry.
func (r *Resolved) CheckPublishSOCI() error {
	_, _, err := r.publishSOCITo()
	return err
}

// publishSOCITo returns the image's own repository, and its reference there.
func (r *Resolved) publishSOCITo() (*registry.Repository, remote.Reference, error) {
	to, err := r.publishTo("")
	if err != nil {
		return nil, remote.Reference{}, err
	}
	ref, err := remote.ParseReference(to.Name())
	switch {
	case err != nil:
	case ref.Tag == "":
		err = fmt.Errorf("%s: %w: the image has no tag, and the new one is to have a tag like it", r.Name(), ErrNotPublished)
	case r.Annotations[soci.AnnotationIndex] != "":
		err = fmt.Errorf("%s: %w: it has a SOCI index", r.Name(), ErrNotPublished)
	}
	return to, ref, err
}

// putSOCI puts all documents of a converted image, the last one under a tag.
func putSOCI(ctx context.Context, to *registry.Repository, c *soci.Converted, tag string) error {
	for _, b := range c.Blobs {
		if err := to.PutBlob(ctx, b.Descriptor, bytes.NewReader(b.Data), nil); err != nil {
			return err
		}
	}
	for i, m := range c.Manifests {
		named := ""
		if i == len(c.Manifests)-1 {
			named = tag
		}
		if _, err := to.PutManifest(ctx, m.MediaType, m.Data, named); err != nil {
			return err
		}
	}
	return nil
}

// ztoc makes the ztoc of a layer, nil if it can have none.
func (l *Layer) ztoc(ctx context.Context) ([]byte, error) {
	if l.Index.Codec() == layerindex.Zstd {
		return nil, nil
	}
	src := remote.NewStream(ctx, l.state.Load().blob, nil)
	defer src.Close()
	z, err := soci.Build(ctx, claimOf(l.Layer), src, nil)
	if errors.Is(err, soci.ErrUnsupported) {
		l.opener.debugf("layer %s has no part in the SOCI index: %v", l.Digest(), err)
		return nil, nil
	}
	return z, err
}
