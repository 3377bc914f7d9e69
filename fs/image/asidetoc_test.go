package image_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/opencontainers/go-digest"
)

// asideLayer returns an eStargz layer of one file whose table of contents is elsewhere.
func asideLayer(t *testing.T, number int) sourcetest.Layer {
	t.Helper()
	entry := standard()[1]
	entry.Name = fmt.Sprint(number)
	l := memberLayer(t, gzip.BestSpeed, []tarEntry{entry})
	b := bytes.NewBuffer(l.Content)
	foot, err := gzip.NewWriterLevel(b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	foot.Extra = []byte("SG\x11\x00STARGZEXTERNALTOC")
	if err := foot.Close(); err != nil {
		t.Fatal(err)
	}
	l.Content = b.Bytes()
	l.Annotations = map[string]string{estargz.TOCDigestAnnotation: digest.FromString(entry.Name).String()}
	return l
}

// TestExternalTOCIsAskedForOnce: the image with the tables of contents of all layers is
// asked for once, though there is none.
func TestExternalTOCIsAskedForOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{asideLayer(t, 1), asideLayer(t, 2), asideLayer(t, 3)}})
	img, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	if got := img.Tree().Len(); got != 4 {
		t.Errorf("%d inodes", got)
	}
	asked := 0
	for _, r := range s.reg.Requests(registrytest.Manifest) {
		if strings.HasSuffix(r.Path, "/latest-esgztoc") {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("latest-esgztoc was asked for %d times", asked)
	}
}

// TestProgressOfIndex: while an index that somebody else made comes slowly, it is told how
// much has come, and nothing is told of the layer.
func TestProgressOfIndex(t *testing.T) {
	t.Parallel()
	l := estargzLayer(t, standard(), nil)
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	size := int64(len(l.Content))
	s.reg.Inject(registrytest.Blob, func(n int) registrytest.Fault {
		if n == 1 {
			return nil // the config
		}
		return s.reg.Trickle(int(size/4), int(size/4), 150*time.Millisecond)
	})
	var index, blob, done atomic.Int64
	s.opts.Progress = func(p image.Progress) {
		switch {
		case p.Done:
			done.Add(1)
		case p.Index:
			index.Store(max(index.Load(), p.Read))
		default:
			blob.Add(1)
		}
	}
	s.mustOpen("estargz", image.VouchedByManifest)
	if n := index.Load(); n < size/4 || n > size || done.Load() != 1 || blob.Load() != 0 {
		t.Errorf("of %d bytes %d were said to have come; %d times done, %d times told of the blob", size, n, done.Load(), blob.Load())
	}
}

// TestMissingSOCIIsToldOnce: that the SOCI index is not there which the manifest names is
// one warning, however many layers there are, and the layers are read.
func TestMissingSOCIIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, named := range []string{digest.FromString("nothing").String(), "no digest"} {
		img := sourcetest.Image{Annotations: map[string]string{soci.AnnotationIndex: named}}
		for i := range 4 {
			l := asideLayer(t, i)
			l.Annotations = nil
			img.Layers = append(img.Layers, l)
		}
		s := serve(t, nil, img)
		s.mustOpen("imgfs", image.VouchedHere)
		if warns := s.said(); len(warns) != 1 || !strings.HasPrefix(warns[0], "the SOCI index "+named+" is not used: ") {
			t.Errorf("got warnings %q", warns)
		}
	}
}
