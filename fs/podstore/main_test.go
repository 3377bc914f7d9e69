package podstore

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// childVariable says what a child of a test does: see TestMain.
const childVariable = "IMGFS_TEST_PODSTORE"

func TestMain(m *testing.M) {
	dir, what, ok := strings.Cut(os.Getenv(childVariable), " ")
	if !ok {
		os.Exit(m.Run())
	}
	var err error
	switch what {
	case "lock":
		err = holdListsLocked(dir)
	default:
		err = changeForEver(dir, what)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// testImage returns an image of some layers, by a word that tells it from others.
func testImage(word string, layers int, names ...string) (*Image, error) {
	config := ocispec.Image{Author: word, RootFS: ocispec.RootFS{Type: "layers"}}
	for i := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromString(fmt.Sprint(word, i)))
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(text), Size: int64(len(text))}})
	if err != nil {
		return nil, err
	}
	img, err := NewImage(&Content{Names: names, Source: "registry.example.com/" + word, Manifest: manifest, Config: text, Index: []byte(`{"manifests":[]}`), Size: 5000})
	if err == nil {
		img.SetInside("etc")
	}
	return img, err
}

func mustImage(t *testing.T, word string, layers int, names ...string) *Image {
	t.Helper()
	img, err := testImage(word, layers, names...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Create(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addHeld adds an image as imgfs does: held, and with something mounted.
func addHeld(ctx context.Context, s *Store, img *Image) error {
	held, err := s.Hold(ctx, img.Layer)
	if err != nil {
		return err
	}
	defer held.Release()
	if err := held.MakeMountpoint(); err != nil {
		return err
	}
	return s.Add(ctx, img)
}

func removeHeld(ctx context.Context, s *Store, img *Image) error {
	held, err := s.Hold(ctx, img.Layer)
	if err != nil {
		return err
	}
	defer held.Release()
	return s.Remove(ctx, img.ID)
}

func mustAdd(t *testing.T, s *Store, img *Image) {
	t.Helper()
	if err := addHeld(t.Context(), s, img); err != nil {
		t.Fatal(err)
	}
}

// checkStore reads a store as containers/storage does, and checks that it has what its lists
// say and nothing else. It returns the names of the images.
func checkStore(t *testing.T, s *Store) (names []string) {
	t.Helper()
	var images []map[string]any
	var layers []map[string]any
	for file, list := range map[string]*[]map[string]any{"overlay-images/images.json": &images, "overlay-layers/layers.json": &layers} {
		text, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, list); err != nil {
			t.Fatalf("%s: %v\n%s", file, err, text)
		}
	}
	parents, used := map[string]string{}, map[string]bool{}
	digests := map[string]bool{}
	for _, l := range layers {
		id := l["id"].(string)
		parents[id], _ = l["parent"].(string)
		d, size := l["diff-digest"].(string), l["diff-size"].(float64)
		if digest.Digest(d).Validate() != nil || digests[d] || size <= 0 {
			t.Errorf("layer %s has the digest %q and size %g", id, d, size)
		}
		digests[d] = true
		short, err := os.ReadFile(filepath.Join(s.dir, "overlay", id, "link"))
		if err != nil || len(short) != 26 {
			t.Errorf("the link of layer %s is %q, %v", id, short, err)
		}
		if to, err := os.Readlink(filepath.Join(s.dir, "overlay/l", string(short))); to != "../"+id+"/diff" {
			t.Errorf("overlay/l/%s leads to %q, %v", short, to, err)
		}
	}
	for _, img := range images {
		id := img["id"].(string)
		for _, name := range anySlice(img["names"]) {
			names = append(names, name.(string))
		}
		for _, key := range anySlice(img["big-data-names"]) {
			text, err := os.ReadFile(filepath.Join(s.dir, "overlay-images", id, fileName(key.(string))))
			want := img["big-data-digests"].(map[string]any)[key.(string)]
			if got := digest.FromBytes(text).String(); err != nil || got != want {
				t.Errorf("%s of image %s is %s, %v; want %s", key, id, got, err, want)
			}
		}
		top := img["layer"].(string)
		for layer := top; layer != ""; layer = parents[layer] {
			if _, ok := parents[layer]; !ok {
				t.Errorf("image %s has a layer %s that is not listed", id, layer)
			}
			used[layer] = true
			st, err := os.Lstat(filepath.Join(s.dir, "overlay", layer, "diff"))
			if err != nil || (st.Mode()&os.ModeSymlink != 0) != (layer == top) || !st.IsDir() && layer != top {
				t.Errorf("diff of layer %s is %v, %v", layer, st, err)
			}
		}
	}
	for id := range parents {
		if !used[id] {
			t.Errorf("no image has the layer %s", id)
		}
	}
	if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) {
		t.Errorf("a name is there twice: %q", names)
	}
	checkNothingElse(t, s, len(images), len(layers))
	return names
}

func anySlice(v any) []any {
	list, _ := v.([]any)
	return list
}

// checkNothingElse counts what is in the store's directories.
func checkNothingElse(t *testing.T, s *Store, images, layers int) {
	t.Helper()
	for dir, want := range map[string]int{"": 5, "overlay-images": images + 2, "overlay-layers": 2, "overlay": layers + 1, "overlay/l": layers} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if err != nil || len(entries) != want {
			t.Errorf("%s has %d entries, %v, want %d: %v", dir, len(entries), err, want, entries)
		}
	}
}
