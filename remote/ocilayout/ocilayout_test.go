package ocilayout_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func image(content string) sourcetest.Image {
	return sourcetest.Image{Layers: []sourcetest.Layer{{Content: []byte(content)}}}
}

// layoutOf writes what store holds as a layout. An entry that has lost its
// content is left out.
func layoutOf(t *testing.T, store *sourcetest.Store, entries ...ocispec.Descriptor) string {
	t.Helper()
	dir := t.TempDir()
	var there []ocispec.Descriptor
	for _, e := range entries {
		if _, ok := store.Get(e.Digest); ok {
			there = append(there, e)
		}
	}
	if err := store.WriteLayout(dir, there...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pack makes a tar of dir, as tar -C dir -c . does.
func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func archiveOf(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(name, pack(t, dir), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// closing closes the source at the end of the test.
func closing(t *testing.T, src *ocilayout.Source, err error) (remote.Source, error) {
	t.Helper()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return src, nil
}

func TestSource(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		sourcetest.Run(t, func(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
			src, err := ocilayout.Open(layoutOf(t, store, sourcetest.Tagged(top, "v1")), "v1")
			return closing(t, src, err)
		}, nil)
	})
	t.Run("archive", func(t *testing.T) {
		sourcetest.Run(t, func(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
			src, err := ocilayout.OpenArchive(t.Context(), archiveOf(t, layoutOf(t, store, top)), "", nil)
			return closing(t, src, err)
		}, nil)
	})
}

func TestChoose(t *testing.T) {
	store := sourcetest.NewStore()
	one, two, three := store.AddImage(image("one")), store.AddImage(image("two")), store.AddImage(image("three"))
	inner := store.AddImage(image("inner"))
	index := store.AddIndex(inner)
	tagged := sourcetest.Tagged
	for _, c := range []struct {
		name    string
		entries []ocispec.Descriptor
		image   string
		want    digest.Digest
		err     error
		says    string
	}{
		{"the only one", []ocispec.Descriptor{one}, "", one.Digest, nil, ""},
		{"the only one, tagged", []ocispec.Descriptor{tagged(one, "v1")}, "", one.Digest, nil, ""},
		{"the only one, of two tags", []ocispec.Descriptor{tagged(one, "v1"), tagged(one, "v2")}, "", one.Digest, nil, ""},
		{"tag", []ocispec.Descriptor{tagged(one, "v1"), tagged(two, "v2")}, "v2", two.Digest, nil, ""},
		{"tag that is a reference", []ocispec.Descriptor{tagged(one, "v1"), tagged(two, "docker.io/library/x:v2")}, "docker.io/library/x:v2", two.Digest, nil, ""},
		{"two of a tag", []ocispec.Descriptor{tagged(one, "v1"), tagged(two, "v1")}, "v1", "", remote.ErrReference, `"v1" is ambiguous, it names several images: "@` + one.Digest.String() + `", "@` + two.Digest.String()},
		{"digest", []ocispec.Descriptor{tagged(one, "v1"), two}, "@" + two.Digest.String(), two.Digest, nil, ""},
		{"digest within an index", []ocispec.Descriptor{index}, "@" + inner.Digest.String(), inner.Digest, nil, ""},
		{"number", []ocispec.Descriptor{one, two, three}, "@1", two.Digest, nil, ""},
		{"index", []ocispec.Descriptor{tagged(index, "v1")}, "v1", index.Digest, nil, ""},
		{"several", []ocispec.Descriptor{tagged(one, "v1"), tagged(two, "v2"), three}, "", "", remote.ErrReference, `"v1", "v2", "@` + three.Digest.String()},
		{"no such tag", []ocispec.Descriptor{tagged(one, "v1")}, "v2", "", remote.ErrNotFound, `no image "v2"; there is "v1"`},
		{"tags have case", []ocispec.Descriptor{tagged(one, "v1")}, "V1", "", remote.ErrNotFound, ""},
		{"no such digest", []ocispec.Descriptor{one}, "@" + digest.FromString("x").String(), "", remote.ErrNotFound, ""},
		{"bad digest", []ocispec.Descriptor{one}, "@sha256:../../index.json", "", remote.ErrNotFound, ""},
		{"no such number", []ocispec.Descriptor{one}, "@1", "", remote.ErrNotFound, ""},
		{"negative", []ocispec.Descriptor{one}, "@-1", "", remote.ErrNotFound, ""},
		{"empty", nil, "", "", remote.ErrNotFound, "empty"},
		{"empty, tag", nil, "v1", "", remote.ErrNotFound, "there is none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := layoutOf(t, store, c.entries...)
			src, err := ocilayout.Open(dir, c.image)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			var got digest.Digest
			img, err := remote.Open(t.Context(), src, "")
			if err == nil {
				got = img.Top.Digest
			}
			if !errors.Is(err, c.err) || c.err != nil && err == nil || got != c.want {
				t.Fatalf("got %s and error %v, want %s and %v", got, err, c.want, c.err)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "oci:"+dir) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got error %q, want one that says %q", err, c.says)
			}
		})
	}
}

func TestManyAreNotAllListed(t *testing.T) {
	testenv.Slow(t)
	store := sourcetest.NewStore()
	var entries []ocispec.Descriptor
	for i := range 1000 {
		entries = append(entries, store.Put(ocispec.MediaTypeImageManifest, []byte{byte(i), byte(i >> 8)}))
	}
	src, err := ocilayout.Open(layoutOf(t, store, entries...), "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := remote.Open(t.Context(), src, ""); err == nil || len(err.Error()) > 4000 || !strings.Contains(err.Error(), "968 more") {
		t.Errorf("got error %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	store := sourcetest.NewStore()
	top := store.AddImage(image("x"))
	for _, c := range []struct {
		name string
		// spoil changes a good layout.
		spoil func(dir string) error
		want  error
	}{
		{"good", func(string) error { return nil }, nil},
		{"no oci-layout", func(dir string) error { return os.Remove(filepath.Join(dir, "oci-layout")) }, nil},
		{"newer minor version", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.9.9"}`), 0o644)
		}, nil},
		{"version 2", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644)
		}, remote.ErrUnsupported},
		{"no version", func(dir string) error { return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{}`), 0o644) }, remote.ErrUnsupported},
		{"oci-layout is garbage", func(dir string) error { return os.WriteFile(filepath.Join(dir, "oci-layout"), nil, 0o644) }, remote.ErrUnsupported},
		{"no index.json", func(dir string) error { return os.Remove(filepath.Join(dir, "index.json")) }, remote.ErrNotFound},
		{"no directory", os.RemoveAll, remote.ErrNotFound},
		{"huge index.json", func(dir string) error { return os.Truncate(filepath.Join(dir, "index.json"), 1<<40) }, remote.ErrUnsupported},
		{"index.json is a directory", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "index.json")), os.Mkdir(filepath.Join(dir, "index.json"), 0o755))
		}, remote.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := layoutOf(t, store, top)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			src, err := ocilayout.Open(dir, "")
			if err == nil {
				defer src.Close()
			}
			if !errors.Is(err, c.want) || c.want != nil && err == nil {
				t.Errorf("got error %v, want %v", err, c.want)
			}
		})
	}
	dir := layoutOf(t, store, top)
	for _, garbage := range []string{"", "{", "[]", `{"manifests":7}`} {
		if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(garbage), 0o644); err != nil {
			t.Fatal(err)
		}
		src, err := ocilayout.Open(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if _, err := src.Resolve(t.Context()); !errors.Is(err, remote.ErrUnsupported) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("index.json %q: got error %v, want %v", garbage, err, remote.ErrUnsupported)
		}
	}
}

// TestArchives has what OpenArchive takes and refuses.
func TestArchives(t *testing.T) {
	store := sourcetest.NewStore()
	plain := pack(t, layoutOf(t, store, sourcetest.Tagged(store.AddImage(image("x")), "v1")))
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var empty bytes.Buffer
	if err := tar.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	for name, c := range map[string]struct {
		content []byte
		want    error
	}{
		"plain":     {plain, nil},
		"gzip":      {packed.Bytes(), nil},
		"cut":       {plain[:len(plain)-3000], remote.ErrUnsupported},
		"cut gzip":  {packed.Bytes()[:packed.Len()-10], remote.ErrUnsupported},
		"no layout": {empty.Bytes(), remote.ErrUnsupported},
		"no tar":    {[]byte(strings.Repeat("text", 1000)), remote.ErrUnsupported},
	} {
		file := filepath.Join(t.TempDir(), "x.tar")
		if err := os.WriteFile(file, c.content, 0o644); err != nil {
			t.Fatal(err)
		}
		src, err := ocilayout.OpenArchive(t.Context(), file, "v1", nil)
		if !errors.Is(err, c.want) || c.want != nil && err == nil {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "oci-archive:"+file+":v1: ") {
				t.Errorf("%s: the error does not name the archive: %v", name, err)
			}
			continue
		}
		if _, err := remote.Open(t.Context(), src, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		src.Close()
	}
	if _, err := ocilayout.OpenArchive(t.Context(), filepath.Join(t.TempDir(), "absent.tar"), "", nil); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("an absent file: got error %v, want %v", err, remote.ErrNotFound)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ocilayout.OpenArchive(ctx, archiveOf(t, t.TempDir()), "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: got error %v, want %v", err, context.Canceled)
	}
}

// TestSparse has a layout that lacks one of two layers.
func TestSparse(t *testing.T) {
	store := sourcetest.NewStore()
	top := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: []byte("here")}, {Content: []byte("gone")}}})
	gone := digest.FromString("gone")
	store.Delete(gone)
	src, err := ocilayout.Open(layoutOf(t, store, top), "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if _, err := img.Layers[0].ReadAt(t.Context(), p, 0); err != nil || string(p) != "here" {
		t.Errorf("the layer that is there: got %q and error %v", p, err)
	}
	if _, err := img.Layers[1].ReadAt(t.Context(), p, 0); !errors.Is(err, remote.ErrNotFound) || !strings.Contains(err.Error(), gone.String()) {
		t.Errorf("the layer that is not: got error %v, want %v that names it", err, remote.ErrNotFound)
	}
}

// TestWrongSizes: a stated size is a claim. What has the right digest is read, with
// a warning that names both sizes; but no layer that is said to have 2^60 bytes.
func TestWrongSizes(t *testing.T) {
	store := sourcetest.NewStore()
	right := store.AddImage(image("right"))
	manifest, _ := store.Get(right.Digest)
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	config := m.Config.Size
	sized := func(size, old string) string {
		return strings.Replace(string(manifest), `"size":`+old+`}`, size+"}", 1)
	}
	absurd := []string{`"size":4611686018427387904`, `"size":1e300`}
	for _, part := range []string{"manifest", "config", "layer"} {
		for _, size := range []string{`"size":6`, `"size":4`, `"size":0`, `"size":-1`, `"size":1125899906842624`, absurd[0], absurd[1], `"other":1`} {
			entry := store.Put(right.MediaType, manifest)
			switch part {
			case "config":
				entry = store.Put(right.MediaType, []byte(sized(size, fmt.Sprint(config))))
			case "layer":
				entry = store.Put(right.MediaType, []byte(sized(size, "5")))
			}
			dir := layoutOf(t, store, entry)
			if part == "manifest" {
				index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,%s}]}`, entry.MediaType, entry.Digest, size)
				if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			archive, err := ocilayout.OpenArchive(t.Context(), archiveOf(t, dir), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			layout, err := ocilayout.Open(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, src := range []*ocilayout.Source{layout, archive} {
				defer src.Close()
				img, err := remote.Open(t.Context(), src, "")
				if part == "layer" && slices.Contains(absurd, size) {
					if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), digest.FromString("right").String()+" has size ") {
						t.Errorf("layer with %s: got error %v, want it refused", size, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s with %s: %v", part, size, err)
					continue
				}
				p := make([]byte, 10)
				if n, err := img.Layers[0].ReadAt(t.Context(), p, 0); string(p[:n]) != "right" || err != io.EOF || img.Layers[0].Size() != 5 {
					t.Errorf("%s with %s: the layer has size %d, read %q and error %v", part, size, img.Layers[0].Size(), p[:n], err)
				}
				if w := strings.Join(img.Warnings, "; "); len(img.Warnings) != 1 || !strings.HasPrefix(w, part+" sha256:") || !strings.Contains(w, "its digest decides") {
					t.Errorf("%s with %s: the warnings are %q", part, size, w)
				}
			}
		}
	}
}

// TestWrongSizeOfWrongContent has content that is not what the digest says: nothing
// of it is a document, and the reader of a layer checks it himself.
func TestWrongSizeOfWrongContent(t *testing.T) {
	store := sourcetest.NewStore()
	top := store.AddImage(image("right"))
	wrong := top
	wrong.Size++
	content, _ := store.Get(top.Digest)
	store.Replace(top.Digest, append(bytes.Clone(content), ' '))
	src, err := ocilayout.Open(layoutOf(t, store, wrong), "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := remote.Open(t.Context(), src, ""); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("got error %v, want %v", err, remote.ErrDigest)
	}
}

func TestFileGetsShorter(t *testing.T) {
	store := sourcetest.NewStore()
	top := store.AddImage(image("0123456789"))
	dir := layoutOf(t, store, top)
	src, err := ocilayout.Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	layer := img.Layers[0]
	if _, err := layer.ReadAt(t.Context(), make([]byte, 10), 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "blobs", "sha256", layer.Digest().Encoded()), 5); err != nil {
		t.Fatal(err)
	}
	n, err := layer.ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, remote.ErrDigest) || errors.Is(err, io.EOF) {
		t.Errorf("got %d bytes and error %v, want %v", n, err, remote.ErrDigest)
	}
}

func TestTagMoves(t *testing.T) {
	store := sourcetest.NewStore()
	one, two := store.AddImage(image("one")), store.AddImage(image("two"))
	dir := layoutOf(t, store, sourcetest.Tagged(one, "v1"))
	src, err := ocilayout.Open(dir, "v1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, want := range []ocispec.Descriptor{one, two} {
		if err := store.WriteLayout(dir, sourcetest.Tagged(want, "v1")); err != nil {
			t.Fatal(err)
		}
		if got, err := src.Resolve(t.Context()); err != nil || got.Digest != want.Digest {
			t.Errorf("got %s and error %v, want %s", got.Digest, err, want.Digest)
		}
	}
}

func TestClose(t *testing.T) {
	store := sourcetest.NewStore()
	src, err := ocilayout.Open(layoutOf(t, store, store.AddImage(image("x"))), "")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := img.Layers[0].ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("ReadAt after Close: got error %v, want %v", err, fs.ErrClosed)
	}
}
