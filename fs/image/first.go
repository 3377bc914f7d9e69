package image

import (
	"context"

	"github.com/imgfs/imgfs/remote/cache/blobs"
)

// FetchFirst fetches what the indexes of others say that is read first of the layers: what
// lies before the landmark of an eStargz layer, and the spans that SOCI has a list of. It
// does so like Fill, while nobody reads. Of most images there is nothing.
func (l *Layers) FetchFirst(ctx context.Context) error {
	var ranges []blobs.Range
	for _, layer := range distinct(l.all) {
		s := layer.state.Load()
		first, err := s.index.First()
		if err != nil {
			return layerError(layer.Digest(), err)
		}
		for _, x := range first {
			ranges = append(ranges, blobs.Range{Blob: s.blob, Off: x.Off, End: x.Off + x.Size})
		}
	}
	if len(ranges) == 0 {
		return nil
	}
	return l.from.disk.Blobs.FillRanges(ctx, ranges)
}
