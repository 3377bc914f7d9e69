package zstdchunked_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/imgfs/imgfs/layerindex/zstdchunked"
	"github.com/opencontainers/go-digest"
)

// TestForeign compares the index of each layer with what the ordinary pass finds in it,
// and each proof with what the frames decode to.
func TestForeign(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"sink-zstdchunked-g1", "sink-zstdchunked-g3", "sink-zstdchunked-stargz", "latin1-zstdchunked-g3", "dot-zstdchunked",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, l := range toctest.Layers(t, toctest.Foreign(t, name), "latest") {
				checkLayer(t, l)
			}
		})
	}
}

// checkLayer makes the index of a layer, with its tar-split and without.
func checkLayer(t *testing.T, l toctest.Layer) {
	t.Helper()
	blob := l.Read(t)
	a, err := zstdchunked.Annotated(l.Annotations)
	if err != nil {
		t.Fatal(err)
	}
	opts := &zstdchunked.Options{Annotations: a, TOCDigest: digest.Digest(l.Annotations[stargzKey])}
	x, err := zstdchunked.Index(context.Background(), l.Layer, blob, opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(blob.Requests) != 1 {
		t.Errorf("requests: %v", blob.Requests)
	}
	pass := toctest.Pass(t, l.Layer, blob)
	contents := toctest.Contents(t, x, blob.B)
	toctest.ReadBack(t, x, blob, contents)
	mend := func(e *layerindex.Entry) bool {
		if x.Losses()&layerindex.LossSubSecond != 0 {
			toctest.Whole(e)
		}
		if x.Losses()&layerindex.LossEmptyXattrs != 0 {
			toctest.DropEmpty(e)
		}
		return !toctest.IsTOC(e)
	}
	toctest.Same(t, x, pass, contents, mend)
	// The same without the tar-split.
	if a.TarSplitPosition == "" {
		return
	}
	opts.Annotations.TarSplitPosition = ""
	y, err := zstdchunked.Index(context.Background(), l.Layer, blob, opts)
	if strings.Contains(l.Path, "latin1") {
		if !errors.Is(err, layerindex.ErrLossy) {
			t.Errorf("without the tar-split: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	toctest.Same(t, y, pass, toctest.Contents(t, y, blob.B), mend)
}

// TestForeignRefused: names of which bytes are lost, and sparse files, which the tar-split
// shows, are left to the ordinary pass.
func TestForeignRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"latin1-zstdchunked-g1": layerindex.ErrLossy, "sparse-zstdchunked": layerindex.ErrIndex} {
		l := toctest.Layers(t, toctest.Foreign(t, name), "latest")[0]
		if _, err := zstdchunked.Index(t.Context(), l.Layer, l.Read(t), &zstdchunked.Options{Annotations: annotated(t, l)}); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(err)
		}
	}
}
