package image

import (
	"cmp"
	"context"
	"slices"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/cache/blobs"
)

// FetchFirst fetches what the indexes of others say that is read first of the layers: what
// lies before the landmark of an eStargz layer, and the spans that SOCI has a list of. It
// does so like Fill, while nobody reads. Nothing is fetched twice, however often they have
// it. Of most images there is nothing.
func (l *Layers) FetchFirst(ctx context.Context) error {
	var ranges []blobs.Range
	for _, layer := range distinct(l.all) {
		s := layer.state.Load()
		first, err := s.index.First()
		if err != nil {
			return layerError(layer.Digest(), err)
		}
		var before extentSet
		for _, x := range first {
			for _, x := range before.add(x) {
				ranges = append(ranges, blobs.Range{Blob: s.blob, Off: x.Off, End: x.Off + x.Size})
			}
		}
	}
	if len(ranges) == 0 {
		return nil
	}
	return l.from.disk.Blobs.FillRanges(ctx, ranges)
}

// An extentSet is a set of bytes: extents in the order of their offsets that do not touch.
type extentSet []layerindex.Extent

// add adds the bytes of x, and returns those that were not in the set.
func (s *extentSet) add(x layerindex.Extent) (fresh []layerindex.Extent) {
	end := x.Off + x.Size
	i, _ := slices.BinarySearchFunc(*s, x.Off, func(e layerindex.Extent, off int64) int { return cmp.Compare(e.Off+e.Size, off) })
	at, j, from, to := x.Off, i, x.Off, end
	for ; j < len(*s) && (*s)[j].Off <= end; j++ {
		e := (*s)[j]
		if e.Off > at {
			fresh = append(fresh, layerindex.Extent{Off: at, Size: e.Off - at})
		}
		at = max(at, e.Off+e.Size)
		from, to = min(from, e.Off), max(to, e.Off+e.Size)
	}
	if at < end {
		fresh = append(fresh, layerindex.Extent{Off: at, Size: end - at})
	}
	*s = slices.Replace(*s, i, j, layerindex.Extent{Off: from, Size: to - from})
	return fresh
}
