package remote_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// bigIndex puts an image index of n bytes, in which there is no image for
// anybody, and describes it.
func bigIndex(store *sourcetest.Store, n int, mark string) ocispec.Descriptor {
	text := `{"mediaType":"` + indexType + `","manifests":[],"annotations":{"` + mark + `":"`
	return store.Put(indexType, []byte(text+strings.Repeat("x", n-len(text)-3)+`"}}`))
}

// The documents of an image have 32 MiB together, however they are nested.
func TestOpenBoundsDocuments(t *testing.T) {
	testenv.Slow(t)
	const most = 8 << 20
	store := sourcetest.NewStore()
	good := store.AddImage(oneLayer("linux/amd64"))
	big := func(n int) (all []ocispec.Descriptor) {
		for i := range n {
			all = append(all, bigIndex(store, most, fmt.Sprint("n", i)))
		}
		return all
	}
	bigManifest := func(i int) ocispec.Descriptor {
		content := manifestOf(store, manifestType, "application/vnd.oci.empty.v1+json", "{}", imageLayer)
		return without(store.Put(manifestType, []byte(content+strings.Repeat(" ", most-len(content)-i))))
	}
	for _, c := range []struct {
		name    string
		top     ocispec.Descriptor
		fetched int // 0: all is well
	}{
		{"three beside the image", store.AddIndex(append(big(3), good)...), 0},
		{"indexes within indexes", store.AddIndex(store.AddIndex(big(1)...), store.AddIndex(big(4)...), good), 6},
		{"one index again and again", store.AddIndex(append(slices.Repeat(big(1), 5), good)...), 4},
		{"manifests without a platform", store.AddIndex(bigManifest(0), bigManifest(1), bigManifest(2), bigManifest(3), bigManifest(4)), 7},
	} {
		src := &countingSource{Source: store.Source("test", c.top)}
		_, err := remote.Open(t.Context(), src, "linux/amd64")
		if c.fetched == 0 {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), "imgfs reads up to 33554432 of an image") {
			t.Errorf("%s: got error %v, want %v for all documents", c.name, err, remote.ErrUnsupported)
		}
		if n := len(src.fetched); n > c.fetched {
			t.Errorf("%s: fetched %d documents, want at most %d", c.name, n, c.fetched)
		}
	}
}

// A file of a layout counts by what it has, not by what is stated.
func TestOpenBoundsDocumentsOfLayout(t *testing.T) {
	testenv.Slow(t)
	store := sourcetest.NewStore()
	var entries []ocispec.Descriptor
	for i := range 5 {
		desc := bigIndex(store, 8<<20, fmt.Sprint("n", i))
		desc.Size = 10
		entries = append(entries, desc)
	}
	top := store.AddIndex(append(entries, store.AddImage(oneLayer("linux/amd64")))...)
	dir := t.TempDir()
	if err := store.WriteLayout(dir, top); err != nil {
		t.Fatal(err)
	}
	src, err := ocilayout.Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := remote.Open(t.Context(), src, "linux/amd64"); !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), "of an image") {
		t.Errorf("got error %v, want %v for all documents", err, remote.ErrUnsupported)
	}
}

// Lists of nothing cost little memory.
func TestOpenBoundsEntries(t *testing.T) {
	testenv.Slow(t)
	store := sourcetest.NewStore()
	plain := manifestOf(store, manifestType, imageConfig, goodConfig, imageLayer)
	layers := plain[strings.Index(plain, `"layers":[`)+len(`"layers":[`):]
	layer := strings.TrimSuffix(layers, "]}")
	sized := func(sizes ...string) string {
		var all []string
		for _, size := range sizes {
			all = append(all, strings.Replace(layer, `"size":10`, `"size":`+size, 1))
		}
		return strings.Replace(plain, layer, strings.Join(all, ","), 1)
	}
	hollow := "{}" + strings.Repeat(",{}", (8<<20)/3-400)
	for _, c := range []struct{ name, mediaType, content, says string }{
		{"entries", indexType, `{"manifests":[` + hollow + `]}`, "more than 16384 entries"},
		{"layers", manifestType, strings.Replace(plain, layer, hollow, 1), "more than 4096 layers"},
		{"layers, and others behind", manifestType, strings.Replace(plain, `"layers":[`, `"layers":[`+hollow+`],"layers":[],"other":[`, 1), "1 diff_ids for 0 layers"},
		{"one layer of 2^63-1", manifestType, sized("9223372036854775807"), "has size 9223372036854775807"},
		{"one layer of 2^53+1", manifestType, sized("9007199254740993"), "has size 9007199254740993"},
		{"layers of 2^53 and 1", manifestType, sized("9007199254740992", "1"), "has size 1;"},
		{"layers of 2^62, twice", manifestType, sized("4611686018427387904", "4611686018427387904"), "has size 4611686018427387904"},
		{"one layer of 2^63", manifestType, sized("9223372036854775808"), "size"},
		{"one layer of -2^63", manifestType, sized("-9223372036854775808"), "has size -9223372036854775808"},
	} {
		var before, after runtime.MemStats
		src := store.Source("test", store.Put(c.mediaType, []byte(c.content)))
		runtime.ReadMemStats(&before)
		_, err := remote.Open(t.Context(), src, "linux/amd64")
		runtime.ReadMemStats(&after)
		if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got error %v, want %v that says %q", c.name, err, remote.ErrUnsupported, c.says)
		}
		// Copies of the text itself, and what is read of the list.
		if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
			t.Errorf("%s: %d MiB were allocated, want at most 100", c.name, n>>20)
		}
	}
	content := sized("9007199254740991", "1")
	src := store.Source("test", store.Put(manifestType, []byte(content)))
	if _, err := remote.Open(t.Context(), src, "linux/amd64"); err == nil || !strings.Contains(err.Error(), "diff_ids") {
		t.Errorf("layers of 2^53 together: got error %v, want that of the config", err)
	}
}

// The file index.json of a layout may list nothings as well.
func TestLayoutBoundsEntries(t *testing.T) {
	testenv.Slow(t)
	dir := t.TempDir()
	text := `{"schemaVersion":2,"manifests":[{}` + strings.Repeat(",{}", (8<<20)/3-100) + `]}`
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := ocilayout.Open(dir, "v1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = src.Resolve(t.Context())
	runtime.ReadMemStats(&after)
	if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), "index.json: more than") {
		t.Errorf("got error %v, want %v", err, remote.ErrUnsupported)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
		t.Errorf("%d MiB were allocated, want at most 100", n>>20)
	}
}
