package labimage

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// load checks all digests and sizes of a layout and returns the entries of
// its image's layers, with the digest of the content.
func load(t *testing.T, dir string) (digest.Digest, [][]entryRead) {
	t.Helper()
	var index ocispec.Index
	parse(t, readFile(t, filepath.Join(dir, ocispec.ImageIndexFile)), &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations[ocispec.AnnotationRefName] != Tag {
		t.Fatalf("index lists %v, want one image %q", index.Manifests, Tag)
	}
	var manifest ocispec.Manifest
	parse(t, blob(t, dir, index.Manifests[0]), &manifest)
	var config ocispec.Image
	parse(t, blob(t, dir, manifest.Config), &config)
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) || len(config.History) != len(manifest.Layers) {
		t.Fatalf("%d layers, diff IDs %v, history %v", len(manifest.Layers), config.RootFS.DiffIDs, config.History)
	}
	var layers [][]entryRead
	for i, l := range manifest.Layers {
		z, err := gzip.NewReader(strings.NewReader(string(blob(t, dir, l))))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if got := digest.FromBytes(b); got != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d has diff ID %s, the config says %s", i, got, config.RootFS.DiffIDs[i])
		}
		layers = append(layers, entries(t, b))
	}
	return index.Manifests[0].Digest, layers
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
}

func blob(t *testing.T, dir string, desc ocispec.Descriptor) []byte {
	t.Helper()
	b := readFile(t, filepath.Join(dir, ocispec.ImageBlobsDir, "sha256", desc.Digest.Encoded()))
	if digest.FromBytes(b) != desc.Digest || int64(len(b)) != desc.Size {
		t.Fatalf("blob of %d bytes, digest %s; want %v", len(b), digest.FromBytes(b), desc)
	}
	return b
}

// An entryRead is an entry as archive/tar reads it.
type entryRead struct {
	*tar.Header
	content string
}

func entries(t *testing.T, b []byte) (all []entryRead) {
	t.Helper()
	r := tar.NewReader(strings.NewReader(string(b)))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		all = append(all, entryRead{h, string(content)})
	}
}

func TestZoo(t *testing.T) {
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		if err := Zoo(dir); err != nil {
			t.Fatal(err)
		}
	}
	first, layers := load(t, dirs[0])
	if second, _ := load(t, dirs[1]); first != second {
		t.Errorf("the same image has digest %s, then %s", first, second)
	}
	if len(layers) != 2 {
		t.Fatalf("%d layers, want 2", len(layers))
	}
	kinds := make(map[byte]int)
	byName := make(map[string]entryRead)
	for _, e := range layers[0] {
		kinds[e.Typeflag]++
		byName[e.Name] = e
	}
	for _, kind := range []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock} {
		if kinds[kind] == 0 {
			t.Errorf("no entry of type %q", kind)
		}
	}
	for _, tt := range []struct {
		name string
		ok   func(e entryRead) bool
	}{
		{"name/gr\xfcn", func(e entryRead) bool { return e.content == "Latin-1\n" }},
		{"mode/setuid", func(e entryRead) bool { return e.Mode == 0o4755 }},
		{"time/before-1970", func(e entryRead) bool { return e.ModTime.Equal(time.Unix(-1001, 5e8)) }},
		{"xattr/capability", func(e entryRead) bool { return e.PAXRecords["SCHILY.xattr.security.capability"] == netBindService }},
		{"sparse/pax", func(e entryRead) bool {
			b := []byte(e.content)
			return len(b) == 10<<20 && b[0] == 0 && string(b[4096:9096]) == noise(5000) &&
				string(b[5<<20:5<<20+7]) == "middle\x00" && strings.HasSuffix(e.content, "\x00end")
		}},
		{"sparse/pax-hole", func(e entryRead) bool { return e.content == strings.Repeat("\x00", 5<<20) }},
	} {
		if e, ok := byName[tt.name]; !ok || !tt.ok(e) {
			t.Errorf("%q: %v, %d bytes of content", tt.name, e.Header, len(e.content))
		}
	}
}

// sources makes a tree with some hundred files, whose times are not fixed.
func sources(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "src")
	for i := range 600 {
		dir := filepath.Join(root, []string{"fmt", "hash", "hash/crc32", "index", "net/http"}[i%5])
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprintf("file%03d.go", i))
		if err := os.WriteFile(name, fmt.Appendf(nil, "package p%d\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("fmt", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestGoTree(t *testing.T) {
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		if err := goTree(dir, sources(t)); err != nil {
			t.Fatal(err)
		}
	}
	first, layers := load(t, dirs[0])
	if second, _ := load(t, dirs[1]); first != second {
		t.Errorf("the same image has digest %s, then %s", first, second)
	}
	if len(layers) != 3 || len(layers[0]) < 600 {
		t.Fatalf("%d layers, the first of %d entries", len(layers), len(layers[0]))
	}
	found := make(map[string]int)
	below := make(map[string]entryRead) // by name, in the layers below
	for i, l := range layers {
		here := make(map[string]entryRead)
		for _, e := range l {
			name := strings.TrimSuffix(e.Name, "/")
			if _, twice := here[name]; twice {
				t.Errorf("layer %d has %q twice", i, name)
			}
			here[name] = e
			for _, kind := range changesOf(e, below, here) {
				found[kind]++
			}
		}
		maps.Copy(below, here)
	}
	for _, kind := range []string{"changed", "mode", "whiteout", "opaque", "link", "symlink", "xattr", "renamed"} {
		if found[kind] == 0 {
			t.Errorf("nothing is %s: %v", kind, found)
		}
	}
	if found["whiteout of nothing"] > 0 || found["link to nothing"] > 0 || found["no parent"] > 0 {
		t.Errorf("layers that do not fit: %v", found)
	}
}

// changesOf names what an entry does to the layers below.
func changesOf(e entryRead, below, here map[string]entryRead) (kinds []string) {
	name := strings.TrimSuffix(e.Name, "/")
	dir, base := filepath.Split(name)
	if parent, ok := here[strings.TrimSuffix(dir, "/")]; dir != "" && (!ok || parent.Typeflag != tar.TypeDir) {
		kinds = append(kinds, "no parent")
	}
	if base == ".wh..wh..opq" {
		return append(kinds, "opaque")
	}
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		if _, ok := below[dir+hidden]; !ok {
			return append(kinds, "whiteout of nothing")
		}
		return append(kinds, "whiteout")
	}
	old, was := below[name]
	switch {
	case e.Typeflag == tar.TypeLink:
		if _, ok := here[e.Linkname]; !ok {
			kinds = append(kinds, "link to nothing")
		}
		kinds = append(kinds, "link")
	case e.Typeflag == tar.TypeSymlink:
		kinds = append(kinds, "symlink")
	case was && e.content != old.content:
		kinds = append(kinds, "changed")
	case was && e.Mode != old.Mode && e.Uid != old.Uid:
		kinds = append(kinds, "mode")
	case strings.HasPrefix(base, "renamed_") && below[dir+base[8:]].content == e.content:
		kinds = append(kinds, "renamed")
	}
	if slices.ContainsFunc(slices.Collect(maps.Keys(e.PAXRecords)), func(k string) bool { return strings.HasPrefix(k, "SCHILY.xattr.") }) {
		kinds = append(kinds, "xattr")
	}
	return kinds
}

func TestGoTreeRefuses(t *testing.T) {
	if err := goTree(t.TempDir(), t.TempDir()); err == nil {
		t.Error("an image of an empty directory")
	}
	if err := goTree(t.TempDir(), filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("an image of no directory")
	}
}

// A layout that fails leaves no half blobs.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	_, err := Write(dir, func(a *Archive) error { return a.Copy("short", 10, strings.NewReader("only")) })
	if err == nil || !strings.Contains(err.Error(), "short") {
		t.Errorf("a file that ends early: error %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPAXRecord(t *testing.T) {
	for n := range 2000 {
		value := strings.Repeat("v", n)
		r := paxRecord("k", value)
		if want := fmt.Sprintf("%d k=%s\n", len(r), value); r != want {
			t.Fatalf("value of %d bytes: %q, want %q", n, r[:10], want[:10])
		}
	}
}

// What Write returns is what it wrote.
func TestWriteReturns(t *testing.T) {
	dir := t.TempDir()
	desc, err := Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, layers := load(t, dir)
	if got != desc.Digest || len(layers) != 0 {
		t.Errorf("Write = %v, the layout has %s with %d layers", desc, got, len(layers))
	}
}
