package image_test

import (
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// TestContentsOfLayout: of a plain layer in a layout on this machine no file is kept,
// however often it is read or executed. Of a compressed one it is, as of one that is
// plain and elsewhere.
func TestContentsOfLayout(t *testing.T) {
	big := random(1, 1<<20)
	for _, c := range []struct {
		name  string
		layer sourcetest.Layer
		here  bool
		kept  int64
	}{
		{"plain", plainLayer(file("big", big)), true, 0},
		{"compressed", gzipLayer(t, "big", big), true, 1},
		{"plain, elsewhere", plainLayer(file("big", big)), false, 1},
	} {
		o := newOpened(t, c.layer)
		tree := (*image.Image)(nil)
		if c.here {
			layout := t.TempDir()
			if err := o.store.WriteLayout(layout, o.store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{c.layer}})); err != nil {
				t.Fatal(err)
			}
			var err error
			if tree, err = image.Open(t.Context(), "oci:"+layout, &image.Options{CacheDir: o.dir, SpanMemory: 1}); err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
		} else {
			tree, _ = o.with(forgetful)
		}
		n := lookup(t, tree, "big")
		for range 4 {
			pass(t, n, big)
			if b, ok := tree.KeptFile(n, true); ok {
				b.Close()
			}
			image.KeptFiles(tree).Wait()
		}
		if s := tree.Stats().Contents; s.Kept != c.kept || s.KeptBytes != c.kept*int64(len(big)) || (s.ReadBytes > 0) != (c.kept > 0) {
			t.Errorf("%s: %+v, want %d kept", c.name, s, c.kept)
		}
		if _, ok := tree.KeptFile(n, false); ok != (c.kept > 0) {
			t.Errorf("%s: there is a file to hand out: %t", c.name, ok)
		}
	}
}
