package podstore

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestUses reads what an engine has on an image.
func TestUses(t *testing.T) {
	s := newStore(t)
	img, free := mustImage(t, "one", 2), mustImage(t, "two", 2)
	root := t.TempDir()
	for name, text := range map[string]string{
		"overlay-layers/layers.json":                  `[{"id":"built","parent":"` + img.Layer + `"},{"id":"more","parent":"built"},{"id":"own"},{"id":"a","parent":"b"},{"id":"b","parent":"a"}]`,
		"overlay-layers/volatile-layers.json":         `[{"id":"run","parent":"` + img.Layer + `"}]`,
		"overlay-containers/containers.json":          `[{"id":"0123456789abcdef","layer":"run"},{"id":"1","names":["other"],"layer":"own"},{"id":"2","names":["circle"],"layer":"a"}]`,
		"overlay-containers/volatile-containers.json": `[{"id":"3","names":["web"],"layer":"more"}]`,
		"overlay-images/images.json":                  `[{"id":"4","names":["localhost/built:latest"],"layer":"more"},{"id":"5","layer":"own"}]`,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, want := s.Uses(img, []string{"/absent", root}), []string{"container 0123456789ab", "container web", "image localhost/built:latest"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.Uses(free, []string{root}); len(got) > 0 {
		t.Errorf("of an image that nobody uses: got %q", got)
	}
}
