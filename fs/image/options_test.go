package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
)

// TestNoOptions: nil and zero options are the defaults, everywhere.
func TestNoOptions(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", home)
	dir, name := exampleImage()
	defer os.RemoveAll(dir)
	for what, opts := range map[string]*image.Options{"nil": nil, "zero": {}} {
		t.Run(what, func(t *testing.T) {
			img, err := image.Open(t.Context(), name, opts)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := cache.DefaultDir(); err != nil || img.Resolved().Cache().Dir() != want {
				t.Errorf("the cache is %s, want %s, %v", img.Resolved().Cache().Dir(), want, err)
			}
			if img.Name() != name || img.Tree().Len() != 4 || len(img.Layers()) != 2 {
				t.Errorf("%s of %d inodes and %d layers", img.Name(), img.Tree().Len(), len(img.Layers()))
			}
			if err := img.Close(); err != nil {
				t.Error(err)
			}
			disk, err := image.OpenCache(opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := disk.Close(); err != nil {
				t.Error(err)
			}
			r, err := image.Resolve(t.Context(), name, opts)
			if err != nil {
				t.Fatal(err)
			}
			found := r.Image
			if tags, err := r.Tags(t.Context()); err != nil || len(tags) != 0 || !r.Local() || len(r.Servers()) != 0 {
				t.Errorf("tags %q, %v, local %v, servers %v", tags, err, r.Local(), r.Servers())
			}
			if img, err = image.New(t.Context(), found, opts); err != nil {
				t.Fatal(err)
			}
			if err := img.Close(); err != nil {
				t.Error(err)
			}
			if r, err = image.From(found, opts); err != nil {
				t.Fatal(err)
			}
			layers, err := r.OpenLayers(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := layers.Fill(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if err := layers.Close(); err != nil {
				t.Error(err)
			}
			if img, err = image.New(t.Context(), &remote.Image{}, opts); err != nil || img.Tree().Len() != 1 {
				t.Fatalf("an image of nothing: %v", err)
			}
			img.NoteUsed()
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	for what, opts := range map[string]*fs.BuilderOptions{"nil": nil, "zero": {}} {
		b, err := fs.NewBuilder(t.Context(), opts)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if tree, err := b.Tree(); err != nil || tree.Len() != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestErrors: what refuses an image says what can help, and leaves nothing open.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		opts image.Options
		hint image.Hint
	}{
		{"localhost:1/a", image.Options{CacheDir: file}, image.HintCacheDir},
		{"localhost:1/a", image.Options{CacheDir: dir + "/cache", AuthFile: dir + "/missing"}, image.HintAuthFile},
		{"localhost:1/a", image.Options{CacheDir: dir + "/cache", Offline: true}, image.HintFetch},
	} {
		_, err := image.Open(t.Context(), tt.name, &tt.opts)
		var got *image.Error
		if !errors.As(err, &got) || got.Hint != tt.hint {
			t.Errorf("%+v: %v, want hint %d", tt.opts, err, tt.hint)
		}
	}
}

// TestNoImage: what is nil is refused, and nothing is left open.
func TestNoImage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if _, err := image.New(t.Context(), nil, &image.Options{CacheDir: dir}); err == nil {
		t.Error("nil was opened")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cache directory: %v", err)
	}
}
