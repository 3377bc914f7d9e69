package dockerarchive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// An entry is one member of an archive: a file, or a link if target is set.
type entry struct {
	name, content, target string
	hard                  bool
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Linkname: e.target, Size: int64(len(e.content)), Mode: 0o644}
		if e.target != "" {
			h.Typeflag = tar.TypeSymlink
			if e.hard {
				h.Typeflag = tar.TypeLink
			}
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

func write(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func archiveOf(t *testing.T, entries ...entry) string {
	t.Helper()
	return write(t, tarOf(t, entries...))
}

// layerTar is the tar of a layer with one file.
func layerTar(t *testing.T, content string) string {
	t.Helper()
	return string(tarOf(t, entry{name: "file", content: content}))
}

func configOf(diffIDs ...digest.Digest) string {
	quoted := make([]string, len(diffIDs))
	for i, d := range diffIDs {
		quoted[i] = fmt.Sprintf("%q", d)
	}
	return `{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[` + strings.Join(quoted, ",") + `]}}`
}

func zipped(t *testing.T, content string) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func zstded(t *testing.T, content string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(w.EncodeAll([]byte(content), nil))
}

// open opens the archive in file, and closes it at the end of the test.
func open(t *testing.T, file, ref string) (*dockerarchive.Source, error) {
	t.Helper()
	src, err := dockerarchive.Open(t.Context(), file, ref, nil)
	if err == nil {
		t.Cleanup(func() {
			if err := src.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	return src, err
}

func TestSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
		file := archiveOf(t, saved(t, store, top)...)
		src, err := open(t, file, "test:latest")
		if err != nil {
			return nil, err
		}
		return src, nil
	}, &sourcetest.Options{OwnManifest: true})
}

// saved returns what docker save writes of an image. Without its manifest
// the archive has the image under another name.
func saved(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) []entry {
	t.Helper()
	content, ok := store.Get(top.Digest)
	if !ok {
		return []entry{{name: "manifest.json", content: `[{"RepoTags":["other:latest"]}]`}}
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		t.Fatal(err)
	}
	var entries []entry
	var names []string
	for _, desc := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		content, _ := store.Get(desc.Digest)
		name := "blobs/sha256/" + desc.Digest.Encoded()
		entries = append(entries, entry{name: name, content: string(content)})
		names = append(names, fmt.Sprintf("%q", name))
	}
	list := fmt.Sprintf(`[{"Config":%s,"RepoTags":["test:latest"],"Layers":[%s]}]`, names[0], strings.Join(names[1:], ","))
	return append(entries, entry{name: "manifest.json", content: list})
}

// several is an archive of three images, the last without a tag.
func several(t *testing.T) string {
	var entries []entry
	var list []string
	for i, tags := range []string{`["alpine:3.10","alpine:latest"]`, `["localhost:5000/a/b:v1","not a reference"]`, "null"} {
		l := layerTar(t, fmt.Sprint(i))
		d := digest.FromString(l)
		entries = append(entries, entry{name: fmt.Sprintf("%d/layer.tar", i), content: l}, entry{name: fmt.Sprintf("%d.json", i), content: configOf(d)})
		list = append(list, fmt.Sprintf(`{"Config":"%d.json","RepoTags":%s,"Layers":["%d/layer.tar"]}`, i, tags, i))
	}
	return archiveOf(t, append(entries, entry{name: "manifest.json", content: "[" + strings.Join(list, ",") + "]"})...)
}

func TestChoose(t *testing.T) {
	file := several(t)
	for _, c := range []struct {
		ref        string
		want       string
		repository string
		err        error
		says       string
	}{
		{"alpine:3.10", "0", "docker.io/library/alpine", nil, ""},
		{"docker.io/library/alpine:3.10", "0", "docker.io/library/alpine", nil, ""},
		{"index.docker.io/alpine", "0", "docker.io/library/alpine", nil, ""},
		{"alpine", "0", "docker.io/library/alpine", nil, ""},
		{"localhost:5000/a/b:v1", "1", "localhost:5000/a/b", nil, ""},
		{"@0", "0", "", nil, ""},
		{"@2", "2", "", nil, ""},
		{"", "", "", remote.ErrReference, `"alpine:3.10", "alpine:latest", "localhost:5000/a/b:v1", "@2"`},
		{"alpine:3.11", "", "", remote.ErrNotFound, "alpine:3.10"},
		{"localhost:5000/a/b", "", "", remote.ErrNotFound, "localhost:5000/a/b:v1"},
		{"@3", "", "", remote.ErrNotFound, ""},
		{"@-1", "", "", remote.ErrReference, ""},
		{"@x", "", "", remote.ErrReference, ""},
		{"@" + digest.FromString("x").String(), "", "", remote.ErrReference, ""},
		{"alpine@" + digest.FromString("x").String(), "", "", remote.ErrReference, "digest"},
		{"Alpine", "", "", remote.ErrReference, `try "alpine"`},
	} {
		src, err := open(t, file, c.ref)
		if !errors.Is(err, c.err) || c.err != nil && err == nil {
			t.Errorf("%q: got error %v, want %v", c.ref, err, c.err)
			continue
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "docker-archive:"+file) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: got error %q, want one that says %q", c.ref, err, c.says)
			}
			continue
		}
		img, err := remote.Open(t.Context(), src, "")
		if err != nil {
			t.Errorf("%q: %v", c.ref, err)
			continue
		}
		if got, want := img.Layers[0].DiffID, digest.FromString(layerTar(t, c.want)); got != want {
			t.Errorf("%q: got layer %s, want image %s with %s", c.ref, got, c.want, want)
		}
		if got := src.Repository(); got != c.repository {
			t.Errorf("Repository of %q: got %q, want %q", c.ref, got, c.repository)
		}
	}
}

// content reads all of a blob.
func content(t *testing.T, b remote.Blob) string {
	t.Helper()
	r := remote.NewStream(t.Context(), b, nil)
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestLayers has the ways in which archives hold a layer. The manifest is
// the same for all; a blob is what its own digest and size say.
func TestLayers(t *testing.T) {
	one, two := layerTar(t, "one"), layerTar(t, strings.Repeat("two", 100_000))
	d1, d2 := digest.FromString(one), digest.FromString(two)
	config := entry{name: "config.json", content: configOf(d1, d2, d1)}
	manifest := func(layers string) entry {
		return entry{name: "manifest.json", content: `[{"Config":"config.json","Layers":[` + layers + `]}]`}
	}
	var digests []digest.Digest
	for _, c := range []struct {
		name    string
		entries []entry
		// blobs are what the layers are read as, one and two by default.
		one, two string
	}{
		{"plain", []entry{{name: "1/layer.tar", content: one}, {name: "2/layer.tar", content: two}, config,
			manifest(`"1/layer.tar","2/layer.tar","1/layer.tar"`)}, one, two},
		{"symbolic link", []entry{{name: "1/layer.tar", content: one}, {name: "2/layer.tar", content: two}, {name: "3/layer.tar", target: "../1/layer.tar"}, config,
			manifest(`"1/layer.tar","2/layer.tar","3/layer.tar"`)}, one, two},
		{"symbolic link first", []entry{{name: "3/layer.tar", target: "../1/layer.tar"}, {name: "1/layer.tar", content: one}, {name: "2/layer.tar", content: two}, config,
			manifest(`"3/layer.tar","2/layer.tar","1/layer.tar"`)}, one, two},
		{"hard link", []entry{{name: "1/layer.tar", content: one}, {name: "2/layer.tar", content: two}, {name: "3/layer.tar", target: "1/layer.tar", hard: true}, config,
			manifest(`"3/layer.tar","2/layer.tar","1/layer.tar"`)}, one, two},
		{"names that need cleaning", []entry{{name: "./1/layer.tar", content: one}, {name: "/2.tar", content: two}, config,
			manifest(`"1/layer.tar","./2.tar","/1/layer.tar"`)}, one, two},
		{"the last of a name", []entry{{name: "1.tar", content: "old"}, {name: "2.tar", content: two}, {name: "1.tar", content: one}, config,
			manifest(`"1.tar","2.tar","1.tar"`)}, one, two},
		{"lower-case keys", []entry{{name: "1.tar", content: one}, {name: "2.tar", content: two}, config,
			{name: "manifest.json", content: `[{"config":"config.json","repoTags":[],"layers":["1.tar","2.tar","1.tar"]}]`}}, one, two},
		{"gzip", []entry{{name: "1.tar.gz", content: zipped(t, one)}, {name: "2.tar.gz", content: zipped(t, two)}, config,
			manifest(`"1.tar.gz","2.tar.gz","1.tar.gz"`)}, zipped(t, one), zipped(t, two)},
		{"gzip of two members", []entry{{name: "1.tar", content: one}, {name: "2", content: zipped(t, two[:7]) + zipped(t, two[7:])}, config,
			manifest(`"1.tar","2","1.tar"`)}, one, zipped(t, two[:7]) + zipped(t, two[7:])},
		{"zstd", []entry{{name: "1.tar", content: one}, {name: "2", content: zstded(t, two)}, config,
			manifest(`"1.tar","2","1.tar"`)}, one, zstded(t, two)},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, err := open(t, archiveOf(t, c.entries...), "")
			if err != nil {
				t.Fatal(err)
			}
			img, err := remote.Open(t.Context(), src, "")
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{c.one, c.two, c.one} {
				l := img.Layers[i]
				if got := content(t, l); got != want || l.Digest() != digest.FromString(want) || l.Size() != int64(len(want)) {
					t.Errorf("layer %d: got %d bytes, digest %s, size %d, want %d bytes, %s", i, len(got), l.Digest(), l.Size(), len(want), digest.FromString(want))
				}
			}
			if in := remote.Inspect(img); in.Layers[1] != d2 || in.LayersData[1].Size != int64(len(two)) || in.DiffIDs[2] != d1 {
				t.Errorf("Inspect: got %+v", in)
			}
			digests = append(digests, img.Top.Digest)
			if img.Top.Digest != digests[0] {
				t.Errorf("got manifest %s, want %s as for the others", img.Top.Digest, digests[0])
			}
		})
	}
}

// TestCompressedArchive has docker save | gzip.
func TestCompressedArchive(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	plain, err := os.ReadFile(several(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, packed := range map[string]string{"gzip": zipped(t, string(plain)), "zstd": zstded(t, string(plain))} {
		src, err := open(t, write(t, []byte(packed)), "alpine:3.10")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		img, err := remote.Open(t.Context(), src, "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, want := content(t, img.Layers[0]), layerTar(t, "0"); got != want {
			t.Errorf("%s: got %d bytes, want %d", name, len(got), len(want))
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("temporary files have names: %v, error %v", left, err)
	}
}

func TestOpenErrors(t *testing.T) {
	layer := layerTar(t, "x")
	d := digest.FromString(layer)
	good := []entry{{name: "l.tar", content: layer}, {name: "c.json", content: configOf(d)}, {name: "manifest.json", content: `[{"Config":"c.json","Layers":["l.tar"]}]`}}
	with := func(name, content string) []byte {
		return tarOf(t, append(good[:len(good):len(good)], entry{name: name, content: content})...)
	}
	cut := zipped(t, layer)
	for _, c := range []struct {
		name    string
		content []byte
		want    error
		says    string
	}{
		{"good", tarOf(t, good...), nil, ""},
		{"no manifest.json", tarOf(t, good[:2]...), remote.ErrUnsupported, "neither manifest.json"},
		{"an OCI layout", tarOf(t, entry{name: "index.json", content: "{}"}), remote.ErrUnsupported, "a tar of an OCI image layout"},
		{"manifest.json is garbage", with("manifest.json", "garbage"), remote.ErrUnsupported, "manifest.json"},
		{"manifest.json is an object", with("manifest.json", "{}"), remote.ErrUnsupported, "manifest.json"},
		{"no images", with("manifest.json", "[]"), remote.ErrNotFound, "no image"},
		{"null", with("manifest.json", "null"), remote.ErrNotFound, "no image"},
		{"no config", with("manifest.json", `[{"Config":"other.json","Layers":["l.tar"]}]`), remote.ErrNotFound, "other.json"},
		{"config not named", with("manifest.json", `[{"Layers":["l.tar"]}]`), remote.ErrNotFound, "config"},
		{"config from outside", with("manifest.json", `[{"Config":"../../../../etc/passwd","Layers":["l.tar"]}]`), remote.ErrNotFound, "config"},
		{"config is garbage", with("c.json", "garbage"), remote.ErrUnsupported, "c.json"},
		{"no layer", with("manifest.json", `[{"Config":"c.json","Layers":["other.tar"]}]`), remote.ErrNotFound, "other.tar"},
		{"more layers than diff_ids", with("manifest.json", `[{"Config":"c.json","Layers":["l.tar","l.tar"]}]`), remote.ErrUnsupported, "2 layers"},
		{"fewer layers than diff_ids", with("manifest.json", `[{"Config":"c.json"}]`), remote.ErrUnsupported, "0 layers"},
		{"malformed diff_id", with("c.json", configOf("sha256:xyz")), remote.ErrUnsupported, `config "c.json": diff_id 0: "sha256:xyz"`},
		{"cut layer", with("l.tar", cut[:len(cut)-6]), remote.ErrDigest, d.String()},
		{"xz layer", with("l.tar", "\xfd7zXZ\x00 and so on"), remote.ErrUnsupported, "xz"},
		{"huge manifest.json", with("manifest.json", strings.Repeat(" ", 8<<20+1)), remote.ErrUnsupported, "manifest.json"},
		{"not a tar", []byte(strings.Repeat("text", 1000)), remote.ErrUnsupported, "tar"},
		{"cut archive", tarOf(t, good...)[:1000], remote.ErrUnsupported, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, c.content)
			_, err := open(t, file, "")
			if !errors.Is(err, c.want) || c.want != nil && err == nil {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "docker-archive:"+file+": ") || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got error %q, want one that says %q", err, c.says)
			}
		})
	}
	if _, err := open(t, filepath.Join(t.TempDir(), "absent"), ""); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("an absent file: got error %v, want %v", err, remote.ErrNotFound)
	}
	if _, err := open(t, t.TempDir(), ""); err == nil {
		t.Error("a directory: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dockerarchive.Open(ctx, several(t), "@0", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: got error %v, want %v", err, context.Canceled)
	}
}
