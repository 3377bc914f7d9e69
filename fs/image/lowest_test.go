package image_test

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
)

// TestLayersOption opens the lowest layers of an image, by its name, by an image that the
// caller has resolved, and by what is held of it when the image is gone.
func TestLayersOption(t *testing.T) {
	dir, name := exampleImage()
	t.Cleanup(func() { os.RemoveAll(dir) })
	layout, err := ocilayout.Open(strings.TrimPrefix(name, "oci:"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer layout.Close()
	resolved, err := remote.Open(t.Context(), layout, "")
	if err != nil {
		t.Fatal(err)
	}
	cacheDir := filepath.Join(t.TempDir(), "cache")
	check := func(how string, img *image.Image) {
		t.Helper()
		if n, all := len(img.Layers()), img.Resolved().NumLayers(); n != 1 || all != 2 {
			t.Errorf("%s: %d of %d layers, want 1 of 2", how, n, all)
		}
		fsys := img.FS(t.Context())
		_, old := iofs.Stat(fsys, "etc/old")
		if _, err := iofs.Stat(fsys, "etc/motd"); old != nil || !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: the tree is not that of the base: %v, %v", how, old, err)
		}
	}
	opts := image.Options{CacheDir: cacheDir, Layers: 1}
	img, err := image.New(t.Context(), resolved, &opts)
	if err != nil {
		t.Fatal(err)
	}
	check("resolved", img)
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	if len(resolved.Layers) != 2 {
		t.Errorf("the caller's image has %d layers left", len(resolved.Layers))
	}
	x := holdImage(t, name, &opts)
	whole := holdImage(t, name, &image.Options{CacheDir: cacheDir})
	if x.identity == whole.identity || x.shown == whole.shown {
		t.Error("the base is the whole image")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	check("held", x.again(t, opts))
	for _, n := range []int{-1, 3} {
		for _, files := range [][]image.Held{nil, x.files} {
			_, err := image.New(t.Context(), resolved, &image.Options{CacheDir: cacheDir, Layers: n})
			if files != nil {
				_, err = image.Open(t.Context(), name, &image.Options{CacheDir: cacheDir, Layers: n, Held: files})
			}
			if err == nil || !strings.Contains(err.Error(), "it has 2, and the base is 1") {
				t.Errorf("%d layers: %v", n, err)
			}
		}
	}
}
