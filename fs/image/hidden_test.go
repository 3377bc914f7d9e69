package image_test

import (
	iofs "io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// TestHiddenTOC: the manifest decides whether the files are shown that eStargz adds to a
// layer, and not which index serves it.
func TestHiddenTOC(t *testing.T) {
	t.Parallel()
	files := []string{
		"stargz.index.json", "{}", "./.prefetch.landmark", "\x0f", "/.no.prefetch.landmark", "\x0f",
		"a", "1", "d/stargz.index.json", "2", "d/.prefetch.landmark", "3",
	}
	const shown = ". a d d/.prefetch.landmark d/stargz.index.json"
	const all = ". .no.prefetch.landmark .prefetch.landmark a d d/.prefetch.landmark d/stargz.index.json stargz.index.json"
	for name, c := range map[string]struct {
		annotations []map[string]string // of the layers
		want        string
	}{
		"annotated":     {[]map[string]string{{estargz.TOCDigestAnnotation: "sha256:" + strings.Repeat("0", 64)}}, shown},
		"not annotated": {[]map[string]string{{"other": "annotation"}}, all},
		// What a layer hides does not hide what another has.
		"below": {[]map[string]string{nil, {estargz.TOCDigestAnnotation: "no digest"}}, all},
		"above": {[]map[string]string{{estargz.TOCDigestAnnotation: ""}, nil}, all},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []sourcetest.Layer
			for _, a := range c.annotations {
				layer := gzipLayer(t, files...)
				layer.Annotations = a
				layers = append(layers, layer)
			}
			o := newOpened(t, layers...)
			for _, trust := range []image.IndexTrust{image.TrustNamed, image.TrustLocal, image.TrustPublished} {
				o.bounds.IndexTrust = trust
				img, err := o.open(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				iofs.WalkDir(img.FS(t.Context()), ".", func(path string, _ iofs.DirEntry, err error) error {
					names = append(names, path)
					return err
				})
				slices.Sort(names)
				if got := strings.Join(names, " "); got != c.want {
					t.Errorf("trust %d: the tree has %s, want %s", trust, got, c.want)
				}
			}
		})
	}
}
