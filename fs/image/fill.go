package image

import (
	"context"

	"github.com/imgfs/imgfs/remote/cache"
)

// Fill brings into the cache what is missing of the image's layers, while
// nobody reads: see FillLayers.
func (t *Image) Fill(ctx context.Context, progress func(have, all int64)) error {
	if len(t.layers) == 0 {
		return nil
	}
	return FillLayers(ctx, t.layers[0].cache, t.layers, progress)
}

// FillLayers brings into the cache what is missing of opened layers, each once
// and the base first, while nobody reads. It is Cache.Fill, which says how it
// ends. What is there already is not fetched again, so it can be ended at any
// time and begun anew. Layers that are on this machine have no place in the
// cache and are left out.
//
// progress, if not nil, is called with how many bytes of all are there.
func FillLayers(ctx context.Context, disk *cache.Cache, layers []*Layer, progress func(have, all int64)) error {
	blobs := make([]*cache.Blob, len(layers))
	for i, l := range layers {
		blobs[i] = l.state.Load().blob
	}
	return disk.Fill(ctx, blobs, progress)
}
