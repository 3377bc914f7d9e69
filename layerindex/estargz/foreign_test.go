package estargz_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
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
		"sink-stargz", "crosslink-estargz", "dup-estargz", "dup-estargz-lossless", "dot-estargz",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := toctest.Foreign(t, name)
			for _, l := range toctest.Layers(t, dir, "latest") {
				checkLayer(t, l, func() ([]byte, error) {
					return os.ReadFile(toctest.Layers(t, dir, "latest-esgztoc")[0].Path)
				})
			}
		})
	}
}

// checkLayer makes the index of a layer, with its annotation and without. external returns
// its TOC if that is elsewhere.
func checkLayer(t *testing.T, l toctest.Layer, external func() ([]byte, error)) {
	t.Helper()
	blob := l.Read(t)
	pass := toctest.Pass(t, l.Layer, blob)
	brought := false
	for _, d := range []digest.Digest{"", tocDigest(l)} {
		blob.Requests = nil
		x, err := estargz.Index(t.Context(), l.Layer, blob, &estargz.Options{TOCDigest: d, External: func(context.Context) ([]byte, error) {
			brought = true
			return external()
		}})
		if errors.Is(err, estargz.ErrNone) && d == "" && !brought && bytes.Contains(blob.B[len(blob.B)-46:], []byte("STARGZEXTERNALTOC")) {
			continue // nothing vouches for it
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(blob.Requests) != 1 {
			t.Errorf("requests: %v", blob.Requests)
		}
		contents := toctest.Contents(t, x, blob.B)
		toctest.ReadBack(t, x, blob, contents)
		toctest.Same(t, x, pass, contents, func(e *layerindex.Entry) bool {
			toctest.Whole(e)
			if x.Losses()&layerindex.LossEmptyXattrs != 0 {
				toctest.DropEmpty(e)
			}
			return d == "" || !toctest.IsTOC(e)
		})
		if tocDigest(l) == "" {
			return
		}
	}
}

// unchecked returns the layer that a blob is, with the DiffID of what it decodes to.
func unchecked(t *testing.T, blob *toctest.Blob) layerindex.Layer {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(blob.B))
	if err != nil {
		t.Fatal(err)
	}
	l := toctest.Of(blob.B)
	if l.DiffID, err = digest.FromReader(z); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestForeignLossy: what JSON cannot say is left to the ordinary pass.
func TestForeignLossy(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"latin1-estargz", "latin1-stargz"} {
		l := toctest.Layers(t, toctest.Foreign(t, name), "latest")[0]
		if _, err := estargz.Index(t.Context(), l.Layer, l.Read(t), &estargz.Options{TOCDigest: tocDigest(l)}); !errors.Is(err, layerindex.ErrLossy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForeignSparse: that a file is sparse in the tar, which is not valid then, cannot be
// seen in a TOC. The contents are what it says.
func TestForeignSparse(t *testing.T) {
	t.Parallel()
	l := toctest.Layers(t, toctest.Foreign(t, "sparse-estargz-lossless"), "latest")[0]
	blob := l.Read(t)
	x, err := estargz.Index(t.Context(), l.Layer, blob, &estargz.Options{TOCDigest: tocDigest(l)})
	if err != nil {
		t.Fatal(err)
	}
	toctest.Contents(t, x, blob.B)
	if _, err := build.Index(t.Context(), l.Layer, bytes.NewReader(blob.B), nil); !errors.Is(err, layerindex.ErrTar) {
		t.Errorf("the ordinary pass: %v", err)
	}
}
