package image_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// TestCheckOutOfBounds: a layer whose tar is bigger than allowed cannot be checked. That
// says nothing against the index, which serves on, also where more is allowed.
func TestCheckOutOfBounds(t *testing.T) {
	t.Parallel()
	var entries []tarEntry
	contents := 0
	for i := range 40 {
		// Headers take more than contents, which is all that the table is bounded by.
		content := fmt.Sprintf("content %d", i)
		entries = append(entries, tarEntry{Header: tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 60) + fmt.Sprint(i), Mode: 0o644, Size: int64(len(content))}, content: content})
		contents += 512
	}
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, entries, nil)}})
	s.opts.MaxLayer = int64(contents) + 4096
	img := s.mustOpen("estargz", image.VouchedByManifest)
	if err := image.Check(t.Context(), img); !errors.Is(err, layerindex.ErrTooBig) || errors.Is(err, image.ErrLiar) {
		t.Errorf("the check says %v, want that the layer is too big", err)
	}
	s.hasAll(img, entries)
	s.opts.MaxLayer = 0
	again := s.mustOpen("estargz", image.VouchedByManifest)
	if err := image.Check(t.Context(), again); err != nil {
		t.Errorf("where more is allowed: %v", err)
	}
	s.hasAll(again, entries)
	if warns := s.said(); len(warns) > 0 {
		t.Errorf("warned of %q", warns)
	}
}
