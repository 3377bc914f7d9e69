package estargz_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/opencontainers/go-digest"
)

// TestForeign compares the index of each layer with what the ordinary pass finds in it,
// and each proof with what the members decode to.
func TestForeign(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"sink-estargz", "sink-estargz-prefetch", "sink-estargz-min", "sink-estargz-lossless", "sink-estargz-ext",
		"sink-stargz", "crosslink-estargz", "dup-estargz-lossless", "dot-estargz",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := toctest.Foreign(t, name)
			for _, l := range toctest.Layers(t, dir, "latest") {
				checkLayer(t, l, dir)
			}
		})
	}
}

// checkLayer makes the index of a layer, with its annotation and without.
func checkLayer(t *testing.T, l toctest.Layer, dir string) {
	t.Helper()
	blob := l.Read(t)
	pass := toctest.Pass(t, l.Layer, blob)
	opts := &estargz.Options{TOCDigest: digest.Digest(l.Annotations[estargz.TOCDigestAnnotation])}
	external := false
	opts.External = func(context.Context) ([]byte, error) {
		external = true
		toc := toctest.Layers(t, dir, "latest-esgztoc")
		return os.ReadFile(toc[0].Path)
	}
	if opts.TOCDigest != "" {
		x, err := estargz.Index(context.Background(), l.Layer, blob, opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(blob.Requests) != 1 {
			t.Errorf("requests: %v", blob.Requests)
		}
		contents := toctest.Contents(t, x, blob.B)
		toctest.Same(t, x, pass, contents, func(e *layerindex.Entry) bool {
			toctest.Whole(e)
			return !toctest.IsTOC(e)
		})
		opts.TOCDigest = ""
	}
	x, err := estargz.Index(context.Background(), l.Layer, blob, opts)
	if external && errors.Is(err, estargz.ErrNone) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	contents := toctest.Contents(t, x, blob.B)
	toctest.Same(t, x, pass, contents, func(e *layerindex.Entry) bool {
		toctest.Whole(e)
		if x.Losses()&layerindex.LossEmptyXattrs != 0 {
			toctest.DropEmpty(e)
		}
		return true
	})
}
