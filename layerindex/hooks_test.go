package layerindex_test

import (
	"context"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/layerindex/reader"
)

// The tests inside the package need what imports it.
func init() {
	layerindex.BuildForTest = func(ctx context.Context, l layerindex.Layer, src io.Reader, opts *layerindex.OptionsForTest) (*layerindex.Index, error) {
		return build.Index(ctx, l, src, (*build.Options)(opts))
	}
	layerindex.ReaderForTest = func(x *layerindex.Index, blob []byte) layerindex.LayerForTest {
		return reader.New(x, samples.Blob(blob), &reader.Options{Cache: reader.NewSpanCache(50_000)})
	}
}
