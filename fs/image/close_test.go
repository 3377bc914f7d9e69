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
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// openBelow returns the files below a directory that this process has open.
func openBelow(t *testing.T, dir string) (names []string) {
	t.Helper()
	const fds = "/proc/self/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Skip(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && strings.HasPrefix(name, dir+"/") {
			names = append(names, name)
		}
	}
	return names
}

// TestCloseLayout: Close, and an Open that fails, leave no file of a layout open.
func TestCloseLayout(t *testing.T) {
	dir, name := exampleImage()
	defer os.RemoveAll(dir)
	for _, opts := range []image.Options{{}, {MaxLayer: 1}, {Platform: "linux/s390x"}} {
		opts.CacheDir = filepath.Join(dir, "cache")
		img, err := image.Open(t.Context(), name, &opts)
		if refused := opts.MaxLayer != 0 || opts.Platform != ""; (err != nil) != refused {
			t.Fatalf("%+v: %v", opts, err)
		}
		if err == nil {
			err = img.Close()
			if err = errors.Join(err, img.Close()); err != nil {
				t.Error(err)
			}
		}
		if names := openBelow(t, dir); len(names) > 0 {
			t.Errorf("%+v: still open: %q", opts, names)
		}
	}
}

// TestReadClosed: a closed image cannot be read, also where its bytes are in memory
// and the cache is still open.
func TestReadClosed(t *testing.T) {
	dir, name := exampleImage()
	defer os.RemoveAll(dir)
	for _, own := range []bool{false, true} {
		opts := &image.Options{CacheDir: filepath.Join(dir, "cache")}
		if own {
			disk, err := image.OpenCache(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			opts.Cache = disk
		}
		img, err := image.Open(t.Context(), name, opts)
		if err != nil {
			t.Fatal(err)
		}
		read := func(name string) error {
			_, err := iofs.ReadFile(img.FS(t.Context()), name)
			return err
		}
		if err := read("etc/motd"); err != nil {
			t.Fatal(err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"etc/motd", "etc/os-release"} { // the first is in memory
			if err := read(name); !errors.Is(err, iofs.ErrClosed) {
				t.Errorf("own cache %v: %s: %v", own, name, err)
			}
		}
		if names, err := iofs.ReadDir(img.FS(t.Context()), "etc"); err != nil || len(names) != 2 {
			t.Errorf("%q, %v", names, err)
		}
		for _, l := range img.Stats().Layers {
			if l.Verified == meta.VerifiedWrong {
				t.Errorf("layer %s counts as wrong", l.Digest)
			}
		}
		if own {
			if f, err := opts.Cache.NewTempFile(nil); err != nil {
				t.Errorf("the caller's cache was closed: %v", err)
			} else {
				f.Close()
			}
		}
	}
}

// TestFromRegistry: an image that the caller found in a registry is not local.
func TestFromRegistry(t *testing.T) {
	dir, name := exampleImage()
	defer os.RemoveAll(dir)
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(name[len("oci:"):], "app"); err != nil {
		t.Fatal(err)
	}
	client := registry.New(nil)
	defer client.Close()
	ref, err := remote.ParseReference(reg.Host() + "/app:latest")
	if err != nil {
		t.Fatal(err)
	}
	found, err := remote.Open(t.Context(), client.Repository(ref), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, offline := range []bool{false, true} {
		r, err := image.From(found, &image.Options{CacheDir: filepath.Join(dir, "cache"), Offline: offline})
		if err != nil {
			t.Fatal(err)
		}
		if r.Local() {
			t.Error("it is local")
		}
		if tags, err := r.Tags(t.Context()); err != nil || len(tags) > 0 == offline {
			t.Errorf("offline %v: tags %q, %v", offline, tags, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNoLayers: the zero Layers are those of an image of nothing.
func TestNoLayers(t *testing.T) {
	img, err := new(image.Layers).Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	img.NoteUsed()
	if err := img.Close(); err != nil || img.Tree().Len() != 1 {
		t.Errorf("%d inodes, %v", img.Tree().Len(), err)
	}
}
