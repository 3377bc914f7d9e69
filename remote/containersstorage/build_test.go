package containersstorage_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/sourcetest"
)

// A builder writes a store of podman's.
type builder struct {
	t            *testing.T
	root, driver string
	images       []map[string]any
	layers       []map[string]any
}

func newBuilder(t *testing.T, driver string) *builder {
	t.Helper()
	return &builder{t: t, root: t.TempDir(), driver: driver}
}

// spec returns what stands in brackets.
func (b *builder) spec() string { return b.driver + "@" + b.root }

func (b *builder) write(name string, content []byte) {
	b.t.Helper()
	file := filepath.Join(b.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// dir returns the directory of a layer's files, below root.
func (b *builder) dir(id string) string {
	if b.driver == "vfs" {
		return "vfs/dir/" + id
	}
	return b.driver + "/" + id + "/diff"
}

// split returns the tar-split of a layer, and writes its files to dir. What is no tar is
// one segment.
func (b *builder) split(layer []byte, dir string) []byte {
	b.t.Helper()
	var lines bytes.Buffer
	position := 0
	line := func(l map[string]any) {
		l["position"] = position
		position++
		text, err := json.Marshal(l)
		if err != nil {
			b.t.Fatal(err)
		}
		lines.Write(append(text, '\n'))
	}
	segment := func(p []byte) { line(map[string]any{"type": 2, "payload": p}) }
	r := bytes.NewReader(layer)
	tr := tar.NewReader(r)
	done := 0
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		at := len(layer) - r.Len()
		segment(layer[done:at])
		l := map[string]any{"type": 1, "name": h.Name, "size": h.Size, "payload": "AAAAAAAAAAA="}
		if !utf8.ValidString(h.Name) {
			l["name_raw"] = []byte(h.Name)
			delete(l, "name")
		}
		line(l)
		done = at + int(h.Size)
		name := dir + path.Clean("/"+h.Name)
		if h.Typeflag == tar.TypeReg {
			b.write(name, layer[at:done])
		} else if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(filepath.Join(b.root, name), 0o755); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if done < len(layer) {
		segment(layer[done:])
	}
	return lines.Bytes()
}

func gzipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// id returns an ID.
func id(of string) string { return digest.FromString(of).Encoded() }

// layer adds a layer on a parent and returns its ID.
func (b *builder) layer(parent string, content []byte) string {
	b.t.Helper()
	d := digest.FromBytes(content)
	layerID := id(parent + d.String())
	dir := b.dir(layerID)
	if err := os.MkdirAll(filepath.Join(b.root, dir), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.write(b.driver+"-layers/"+layerID+".tar-split.gz", gzipped(b.t, b.split(content, dir)))
	rec := map[string]any{"id": layerID, "diff-digest": d, "diff-size": len(content)}
	if parent != "" {
		rec["parent"] = parent
	}
	b.layers = append(b.layers, rec)
	return layerID
}

// image adds an image with a manifest, and documents beside it by their digests.
func (b *builder) image(top string, manifest []byte, names []string, documents map[digest.Digest][]byte) string {
	b.t.Helper()
	d := digest.FromBytes(manifest)
	imageID := id(strings.Join(names, ",") + d.String())
	digests := map[string]digest.Digest{}
	put := func(name string, content []byte) {
		digests[name] = digest.FromBytes(content)
		file := name
		if name != "manifest" {
			file = "=" + base64.StdEncoding.EncodeToString([]byte(name))
		}
		b.write(b.driver+"-images/"+imageID+"/"+file, content)
	}
	put("manifest", manifest)
	put("manifest-"+d.String(), manifest)
	for d, doc := range documents {
		put(d.String(), doc)
	}
	b.images = append(b.images, map[string]any{"id": imageID, "digest": d, "names": names, "layer": top, "big-data-digests": digests})
	return imageID
}

// save writes the lists.
func (b *builder) save() {
	b.t.Helper()
	for name, list := range map[string][]map[string]any{"images": b.images, "layers": b.layers} {
		text, err := json.Marshal(list)
		if err != nil {
			b.t.Fatal(err)
		}
		if list == nil {
			text = []byte("[]")
		}
		b.write(b.driver+"-"+name+"/"+name+".json", text)
	}
	if err := os.MkdirAll(filepath.Join(b.root, b.driver), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// copyImage adds the image of a store for tests under a name.
func (b *builder) copyImage(store *sourcetest.Store, top ocispec.Descriptor, name string) string {
	b.t.Helper()
	manifest, ok := store.Get(top.Digest)
	if !ok {
		return ""
	}
	documents := map[digest.Digest][]byte{}
	parent := ""
	var walk func(content []byte)
	walk = func(content []byte) {
		var m struct {
			Manifests []ocispec.Descriptor
			Config    ocispec.Descriptor
			Layers    []ocispec.Descriptor
		}
		if err := json.Unmarshal(content, &m); err != nil {
			b.t.Fatal(err)
		}
		for _, sub := range m.Manifests {
			doc, _ := store.Get(sub.Digest)
			documents[sub.Digest] = doc
			walk(doc)
		}
		if doc, ok := store.Get(m.Config.Digest); ok && m.Config.Digest != "" {
			documents[m.Config.Digest] = doc
			parent = ""
			for _, l := range m.Layers {
				content, _ := store.Get(l.Digest)
				parent = b.layer(parent, content)
			}
		}
	}
	walk(manifest)
	return b.image(parent, manifest, []string{name}, documents)
}

// An entry is one of a tar.
type entry struct {
	name, content string
	kind          byte // 0 is a file
	format        tar.Format
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: e.kind, Format: e.format}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// simple adds an image of some layers, and returns its manifest.
func (b *builder) simple(name string, layers ...[]byte) []byte {
	b.t.Helper()
	store := sourcetest.NewStore()
	var all []sourcetest.Layer
	for _, content := range layers {
		all = append(all, sourcetest.Layer{Content: content})
	}
	top := store.AddImage(sourcetest.Image{Layers: all, Config: map[string]any{"architecture": "amd64", "os": "linux", "author": name}})
	b.copyImage(store, top, name)
	manifest, _ := store.Get(top.Digest)
	return manifest
}

// many returns a tar of n small files.
func many(t *testing.T, n int) []byte {
	t.Helper()
	var entries []entry
	for i := range n {
		entries = append(entries, entry{name: fmt.Sprintf("usr/share/doc/package-%d/file-%d", i/10, i), content: strings.Repeat(fmt.Sprint(i), i%50)})
	}
	return tarOf(t, entries...)
}
