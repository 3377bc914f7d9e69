package image_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// TestForeignIndexDamaged: that the file of an index of others is damaged under a tree is
// no lie. The layer is read on, and compared with what the index was made of.
func TestForeignIndexDamaged(t *testing.T) {
	t.Parallel()
	l := memberLayer(t, 6, standard())
	for origin, s := range map[string]*served{
		"soci":    serveSOCI(t, l, ztocOf(t, l)),
		"estargz": serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, standard(), nil)}}),
	} {
		for _, half := range []bool{false, true} {
			dir := t.TempDir()
			s.useCache(dir)
			img := s.mustOpen(origin, image.VouchedByManifest)
			files, err := filepath.Glob(filepath.Join(dir, "indexes/sha256/*-*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("%s: index files %q, %v", origin, files, err)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			from := 0
			if half {
				from = len(b) / 2
			}
			f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(bytes.Repeat([]byte{7}, len(b)-from), int64(from))
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			s.hasAll(img, standard())
			if err := image.Check(t.Context(), img); err != nil {
				t.Errorf("%s, half %t: %v", origin, half, err)
			}
			s.hasAll(img, standard())
			if u := image.Uses(img)[0]; u.Vouched != image.VouchedHere {
				t.Errorf("%s, half %t: then read by %+v", origin, half, u)
			}
		}
	}
}
