package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// An unboundSOCI is a SOCI index that says of which image it is.
type unboundSOCI struct {
	*soci.Manifest
	digest digest.Digest
}

// boundSOCI returns the ztoc of a layer in the SOCI index that the image's manifest
// names.
func (o *others) boundSOCI(ctx context.Context, l remote.Layer) *candidate {
	d := digest.Digest(o.img.Annotations[soci.AnnotationIndex])
	src := o.img.Source
	if d == "" || src == nil {
		return nil
	}
	what := "the SOCI index " + d.String()
	m, err := o.bound.get(func() (*soci.Manifest, error) {
		m, err := readSOCI(ctx, src, d)
		if err != nil && ctx.Err() == nil {
			o.tellUnused(what, VouchedByManifest, err) // once for all layers
		}
		return m, err
	})
	if err != nil {
		return nil
	}
	return o.ztoc(&candidate{by: VouchedByManifest, what: what, from: src.Repository() + "@" + d.String()}, src, m, l)
}

// readSOCI reads a SOCI index of version 2.
func readSOCI(ctx context.Context, src remote.Source, d digest.Digest) (*soci.Manifest, error) {
	ctx, cancel := patient(ctx)
	defer cancel()
	a, err := remote.OpenArtifact(ctx, src, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d})
	if err != nil {
		return nil, err
	}
	m, err := soci.ParseIndex(a.Manifest)
	if err == nil && m.Version != 2 {
		err = fmt.Errorf("%w: it is of version %d", soci.ErrManifest, m.Version)
	}
	return m, err
}

// referringSOCI returns the ztoc of a layer in a SOCI index that refers to the image's
// manifest.
func (o *others) referringSOCI(ctx context.Context, l remote.Layer) *candidate {
	src, ok := o.artifacts()
	if !ok {
		return nil
	}
	found, err := o.unbound.get(func() (none unboundSOCI, err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, indexrepo.Patience, errSilent)
		defer cancel()
		// Lists of referrers are not kept, but which of them was used.
		name := fmt.Sprintf("%s@%s#%s", src.Repository(), o.img.Descriptor.Digest, soci.ArtifactTypeV1)
		kept, known := o.cache.Meta.Reference(name)
		list, err := src.Referrers(ctx, o.img.Descriptor.Digest, soci.ArtifactTypeV1)
		switch {
		case known && errors.Is(err, remote.ErrUnavailable):
			list = []ocispec.Descriptor{kept}
		case err != nil:
			return none, err
		}
		for _, desc := range list {
			a, err := remote.OpenArtifact(ctx, src, desc)
			if err != nil {
				o.debugf("SOCI index %s: %v", desc.Digest, err)
				continue
			}
			m, err := soci.ParseIndex(a.Manifest)
			if err == nil && m.Version == 1 && m.Subject != nil && m.Subject.Digest == o.img.Descriptor.Digest {
				if src.Repository() != "" {
					o.cache.Meta.KeepReference(name, desc)
				}
				return unboundSOCI{m, desc.Digest}, nil
			}
		}
		return none, indexes.ErrNone
	})
	if err != nil {
		if !errors.Is(err, indexes.ErrNone) {
			o.debugf("SOCI indexes of %s: %v", o.img.Name(), err)
		}
		return nil
	}
	return o.ztoc(&candidate{by: VouchedByRegistry, what: "a SOCI index", from: src.Repository() + "@" + found.digest.String()}, src, found.Manifest, l)
}

// ztoc makes c the candidate of a layer's ztoc; nil if there is none.
func (o *others) ztoc(c *candidate, src remote.Source, m *soci.Manifest, l remote.Layer) *candidate {
	files, ok := m.Layers[l.Digest()]
	if !ok {
		return nil
	}
	c.key = keyOf(files.Ztoc.Digest.String())
	c.make = func(ctx context.Context) (*layerindex.Index, error) {
		var first []soci.SpanRange
		if files.Prefetch != nil {
			doc, err := o.file(ctx, src, *files.Prefetch, l)
			if err == nil {
				first, err = soci.ParsePrefetch(doc)
			}
			if err != nil {
				o.debugf("layer %s: what to fetch first, %s: %v", l.Digest(), files.Prefetch.Digest, err)
			}
		}
		ztoc, err := o.file(ctx, src, files.Ztoc, l)
		if err != nil {
			return nil, err
		}
		budget := o.metadata().Part()
		defer budget.Undo()
		return soci.Index(ctx, claimOf(l), ztoc, &soci.Options{Budget: budget, MaxSize: o.opts.MaxLayer, First: first})
	}
	return c
}
