package podstore

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestStore adds and removes images, and reads the store as the library does.
func TestStore(t *testing.T) {
	s := newStore(t)
	checkStore(t, s)
	one, two := mustImage(t, "one", 3, "example.com/one:latest", "example.com/both:latest"), mustImage(t, "two", 1, "example.com/both:latest")
	mustAdd(t, s, one)
	mustAdd(t, s, two)
	if got, want := checkStore(t, s), []string{"example.com/one:latest", "example.com/both:latest"}; !slices.Equal(got, want) {
		t.Errorf("the names are %q, want %q", got, want)
	}
	images, err := s.Images(t.Context())
	if err != nil || len(images) != 2 || !slices.Equal(images[0].Names, two.Names) || images[1].Source != one.Source || images[1].Size != 5000 || images[1].Layers != 3 || images[1].Added.IsZero() {
		t.Fatalf("the images are %+v, %v", images, err)
	}
	// Again, under another name.
	mustAdd(t, s, mustImage(t, "one", 3, "example.com/new:1"))
	if got, want := checkStore(t, s), []string{"example.com/new:1", "example.com/one:latest", "example.com/both:latest"}; !slices.Equal(got, want) {
		t.Errorf("the names are %q, want %q", got, want)
	}
	for range 2 { // the second time there is nothing to do
		if err := removeHeld(t.Context(), s, one); err != nil {
			t.Fatal(err)
		}
	}
	if got := checkStore(t, s); !slices.Equal(got, two.Names) {
		t.Errorf("the names are %q, want those of the image that is left", got)
	}
	if _, err := os.Lstat(s.Mountpoint(one.Layer)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory that it was mounted on: %v", err)
	}
}

// TestNotMounted: what leads to the image's files leads nowhere before it is mounted.
func TestNotMounted(t *testing.T) {
	s := newStore(t)
	img := mustImage(t, "one", 2)
	mustAdd(t, s, img)
	diff := filepath.Join(s.dir, "overlay", img.Layer, "diff")
	if _, err := os.Stat(diff); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the mount: %v", err)
	}
	if err := os.Mkdir(filepath.Join(s.Mountpoint(img.Layer), "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	there, err := os.Stat(diff)
	want, _ := os.Stat(s.Mountpoint(img.Layer))
	if err != nil || !os.SameFile(there, want) {
		t.Errorf("with the mount: %v, %v", there, err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a:b", "a b", "ä"} {
		if img.SetInside(name) {
			t.Errorf("the directory %q was taken", name)
		}
	}
}

// TestForeign: nothing is written to a directory that is something else.
func TestForeign(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string)
		want error
	}{
		{"a file", write("storage.lock", ""), ErrForeign},
		{"a directory", func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "overlay"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, ErrForeign},
		{"a damaged marker", write(markerName, "{"), ErrForeign},
		{"a marker of nothing", write(markerName, "{}"), ErrForeign},
		{"a newer format", write(markerName, `{"version":2}`), ErrVersion},
		{"others write", func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, ErrUnsafe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.make(t, dir)
			before, _ := filepath.Glob(filepath.Join(dir, "*"))
			_, err := Create(t.Context(), dir)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got error %v, want %v with the directory's name", err, tt.want)
			}
			if after, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(before, after) {
				t.Errorf("there were %q, and there are %q", before, after)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, ErrNoStore) {
		t.Errorf("of one that is missing: %v", err)
	}
	if _, err := Create(t.Context(), filepath.Join(t.TempDir(), "a:b")); err == nil {
		t.Error("a directory with a colon was taken")
	}
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		if err := os.Chown(dir, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(t.Context(), dir); !errors.Is(err, ErrUnsafe) {
			t.Errorf("of another user's: %v", err)
		}
	}
}

// TestDamagedList: a list that cannot be read is named, and not replaced.
func TestDamagedList(t *testing.T) {
	s := newStore(t)
	mustAdd(t, s, mustImage(t, "one", 2))
	for _, path := range []string{s.imagesFile(), s.layersFile()} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:len(whole)/2], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := addHeld(t.Context(), s, mustImage(t, "two", 2)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got error %v, want one with the name %s", err, path)
		}
		if text, _ := os.ReadFile(path); len(text) != len(whole)/2 {
			t.Errorf("%s has been replaced", path)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checkStore(t, s)
}

// TestNewImage refuses what is no image.
func TestNewImage(t *testing.T) {
	good := mustImage(t, "one", 1)
	manifest, config := good.files["manifest"], good.files[good.config.String()]
	for name, c := range map[string]*Content{
		"no manifest":      {Config: config},
		"no config":        {Manifest: manifest},
		"another config":   {Manifest: manifest, Config: append([]byte(" "), config...)},
		"no layers":        {Manifest: manifestOf(t, `{}`), Config: []byte(`{}`)},
		"config not named": {Manifest: []byte(`{}`), Config: config},
	} {
		if _, err := NewImage(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	other := mustImage(t, "two", 1)
	if other.Layer == good.Layer || diffDigest(other.ID, 0) == diffDigest(good.ID, 0) || shortName(other.Layer) == shortName(good.Layer) {
		t.Error("two images have a layer in common")
	}
}

func manifestOf(t *testing.T, config string) []byte {
	t.Helper()
	text, err := json.Marshal(ocispec.Manifest{Config: ocispec.Descriptor{Digest: digestOf(config)}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestFind finds images by their names and IDs.
func TestFind(t *testing.T) {
	images := []*Image{{ID: "abc0", Names: []string{"example.com/a:latest"}, Source: "example.com/a@sha256:0"}, {ID: "abc1"}, {ID: "ffff", Names: []string{"abc"}}}
	for word, want := range map[string]*Image{
		"example.com/a:latest": images[0], "a": images[0], "example.com/a@sha256:0": images[0], "abc0": images[0], "sha256:abc1": images[1], "abc": images[2], "fff": images[2],
	} {
		if got, err := Find(images, word, "example.com/"+word+":latest"); got != want {
			t.Errorf("%s: got %+v, %v", word, got, err)
		}
	}
	for word, want := range map[string]error{"sha256:abc": ErrAmbiguous, "ab": ErrNoImage, "": ErrNoImage, "b": ErrNoImage} {
		if _, err := Find(images, word); !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want %v", word, err, want)
		}
	}
}
