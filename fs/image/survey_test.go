package image_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
)

// TestMergeSurvey has a layer twice in a row, which is merged once.
func TestMergeSurvey(t *testing.T) {
	base := gzipLayer(t, "a", "12345", "d/b", "1")
	o := newOpened(t, base, base, gzipLayer(t, "d/.wh.b", "", "a", "123"))
	img, survey, err := o.layers(image.Options{}).MergeSurvey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	want := []fs.LayerChanges{
		{Added: fs.Count{Names: 4, Bytes: 6}, Useless: 6},
		{},
		{Replaced: fs.Count{Names: 1, Bytes: 3}, Hidden: fs.Count{Names: 1, Bytes: 1}},
	}
	for i, got := range survey.Layers() {
		if got != want[i] {
			t.Errorf("layer %d: got %+v, want %+v", i, got, want[i])
		}
	}
	if n, err := img.Tree().Lookup("a", false); err != nil || survey.Layer(n) != 2 {
		t.Errorf("a is of layer %d, error %v", survey.Layer(n), err)
	}
}

// TestMergeSurveyBound has less memory than a survey takes, but enough for the tree.
func TestMergeSurveyBound(t *testing.T) {
	var files []string
	for i := range 2000 {
		files = append(files, fmt.Sprint(i), "x")
	}
	o := newOpened(t, gzipLayer(t, files...))
	for _, c := range []struct {
		limit  int64
		survey bool
		want   error
	}{{300 << 10, false, nil}, {300 << 10, true, layerindex.ErrMetadata}, {600 << 10, true, nil}} {
		layers := o.layers(image.Options{MaxMetadata: c.limit})
		merge := layers.Merge
		if c.survey {
			merge = func(ctx context.Context) (*image.Image, error) {
				img, _, err := layers.MergeSurvey(ctx)
				return img, err
			}
		}
		img, err := merge(t.Context())
		if !errors.Is(err, c.want) {
			t.Errorf("at most %d bytes, survey %v: got error %v, want %v", c.limit, c.survey, err, c.want)
		}
		if err == nil {
			img.Close()
		}
	}
}

// layers opens the layers of the image.
func (o *opened) layers(opts image.Options) *image.Layers {
	o.t.Helper()
	img, err := remote.Open(o.t.Context(), o.src, "")
	if err != nil {
		o.t.Fatal(err)
	}
	opts.CacheDir = o.dir
	r, err := image.From(img, &opts)
	if err != nil {
		o.t.Fatal(err)
	}
	layers, err := r.OpenLayers(o.t.Context(), nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return layers
}
