package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/opencontainers/go-digest"
)

// Whole returns the blob of a layer for one who reads all of it once, and compares it with
// its digest: what the cache has of it comes from there, and all else straight from where
// the image is. Nothing is indexed or kept for that. With again what came before was not
// the blob: then nothing comes from the cache, and all of it from another place, as far as
// there is a choice.
//
// release is to be called when nothing is read any more, before Close. The error wraps
// remote.ErrNotFound if the image has no such layer.
func (r *Resolved) Whole(ctx context.Context, layer digest.Digest, again bool) (b remote.Blob, release func(), err error) {
	release = func() {}
	layers := r.wholeImage().Layers
	i := slices.IndexFunc(layers, func(l remote.Layer) bool { return l.Digest() == layer })
	if i < 0 {
		return nil, nil, fmt.Errorf("%s: layer %s: %w", r.Name(), layer, remote.ErrNotFound)
	}
	l := layers[i]
	o := r.newOpener()
	if err := o.checkBlob(l.Size()); err != nil {
		return nil, nil, layerError(layer, err)
	}
	if err := layer.Validate(); err != nil {
		return nil, nil, layerError(layer, err)
	}
	switch other, ok := l.Blob.(remote.ElsewhereBlob); {
	case remote.IsLocal(l.Blob):
		return l.Blob, release, nil
	case again && ok:
		return elsewhere{other}, release, nil
	case again:
		return l.Blob, release, nil
	}
	if cuts := o.fullest(ctx, l); cuts != nil {
		if cached, err := o.cache.Blobs.Blob(l.Blob, cuts); err == nil {
			return cached.Patched(), release, nil
		}
	}
	if kept, ok := o.cache.Blobs.Stored(layer, l.Size()); ok { // its index is lost
		return kept, func() { kept.Close() }, nil
	}
	return l.Blob, release, nil
}

// fullest returns the cuts by which most of a layer is in the cache; nil if nothing is, or
// nothing that an index here tells what it must be.
func (o *opener) fullest(ctx context.Context, l remote.Layer) (best blobs.Cuts) {
	held := o.cache.Blobs.Holding(l.Digest())
	by := map[string]int64{"": held.Cached} // by the keys of cuts
	for _, part := range held.Cuts {
		by[part.Key] = part.Cached
		by[""] -= part.Cached
	}
	most := int64(0)
	for _, c := range o.knownCuts(ctx, l) {
		if n := by[blobs.Key(c)]; n > most && o.cache.Blobs.CheckCuts(l.Digest(), l.Size(), c) == nil {
			best, most = c, n
		}
	}
	return best
}

// knownCuts returns how the indexes that are here cut a layer.
func (o *opener) knownCuts(ctx context.Context, l remote.Layer) (all []blobs.Cuts) {
	add := func(x *layerindex.Index, err error) {
		if err != nil {
			return // there is none that could be used
		}
		defer x.Close()
		if x.ProofKind() == layerindex.ProofChunks {
			if chunks, err := chunksOf(x); err == nil {
				all = append(all, chunks)
			}
		} else if prover, err := reader.NewProver(x); err == nil {
			all = append(all, prover)
		}
	}
	add(o.store.Load(ctx, claimOf(l)))
	files, err := o.store.List()
	if err != nil {
		return all // what is not known is fetched
	}
	for _, f := range files {
		if f.Digest != l.Digest() || f.Key == "" {
			continue
		}
		if size, sums, err := o.store.FarChunks(f.Digest, f.Key); err == nil {
			all = append(all, blobs.Chunks{Size: size, Sums: sums})
			continue
		}
		add(o.store.LoadKey(ctx, claimOf(l), f.Key))
	}
	return all
}
