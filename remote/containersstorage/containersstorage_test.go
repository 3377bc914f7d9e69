package containersstorage_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// open opens an image of a store, and closes it at the end of the test.
func open(t *testing.T, spec, name string) (*containersstorage.Source, error) {
	t.Helper()
	src, err := containersstorage.Open(t.Context(), spec, name)
	if err == nil {
		t.Cleanup(func() { src.Close() })
	}
	return src, err
}

func TestSource(t *testing.T) {
	testenv.Slow(t)
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
				b := newBuilder(t, driver)
				b.copyImage(store, top, "localhost/x:latest")
				b.save()
				return open(t, b.spec(), "x")
			}, nil)
		})
	}
}

// readLayer reads a layer as the pass over it does.
func readLayer(t *testing.T, blob remote.Blob) ([]byte, error) {
	t.Helper()
	r := remote.NewStream(t.Context(), blob, nil)
	defer r.Close()
	return io.ReadAll(r)
}

// TestTar: a layer's tar comes about byte for byte, whatever its names are.
func TestTar(t *testing.T) {
	testenv.Slow(t)
	long := strings.Repeat("directory/", 30) + "file"
	layer := tarOf(t, entry{name: "./etc/", kind: tar.TypeDir}, entry{name: "./etc/passwd", content: "root"}, entry{name: "a\xffb", content: "raw", format: tar.FormatGNU},
		entry{name: long, content: strings.Repeat("x", 100_000)}, entry{name: ".wh.gone"}, entry{name: "a\nb", content: "line"}, entry{name: "/abs/../file", content: "abs"})
	layer = append(layer, bytes.Repeat([]byte("behind the end"), 10_000)...)
	b := newBuilder(t, "overlay")
	b.simple("localhost/x:latest", many(t, 3000), layer)
	b.save()
	src, err := open(t, b.spec(), "x")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Open(t.Context(), src, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]byte{many(t, 3000), layer} {
		got, err := readLayer(t, img.Layers[i])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("layer %d: got %d bytes and error %v, want the %d bytes that were stored", i, len(got), err, len(want))
		}
		for off := 0; off < len(want); off += len(want)/97 + 1 {
			p := make([]byte, min(off%5000+1, len(want)-off))
			if n, err := img.Layers[i].ReadAt(t.Context(), p, int64(off)); n < len(p) || !bytes.Equal(p, want[off:off+len(p)]) {
				t.Errorf("layer %d: %d bytes at %d: got %d and error %v, or others", i, len(p), off, n, err)
			}
		}
	}
}

// TestNames has what podman would find, and what is more.
func TestNames(t *testing.T) {
	b := newBuilder(t, "overlay")
	manifests := map[string]string{}
	for _, name := range []string{"docker.io/library/app:latest", "localhost/app:latest", "docker.io/library/app:v1", "quay.io/a/tool:latest", "quay.io/b/tool:latest", "localhost:5000/x:1"} {
		manifests[name] = digest.FromBytes(b.simple(name, tarOf(t, entry{name: "f", content: name}))).String()
	}
	b.save()
	imageID := b.images[0]["id"].(string)
	for _, c := range []struct{ name, want, says string }{
		{"app", "localhost/app:latest", ""},
		{"docker.io/app", "docker.io/library/app:latest", ""},
		{"docker.io/library/app", "docker.io/library/app:latest", ""},
		{"app:v1", "docker.io/library/app:v1", ""},
		{"localhost:5000/x:1", "localhost:5000/x:1", ""},
		{"x:1", "localhost:5000/x:1", ""},
		{"a/tool", "quay.io/a/tool:latest", ""},
		{imageID, "docker.io/library/app:latest", ""},
		{"@" + imageID, "docker.io/library/app:latest", ""},
		{"sha256:" + imageID, "docker.io/library/app:latest", ""},
		{"@sha256:" + imageID, "docker.io/library/app:latest", ""},
		{imageID[:12], "docker.io/library/app:latest", ""},
		{"docker.io/library/app@" + imageID[:12], "docker.io/library/app:latest", ""},
		{"app@" + manifests["docker.io/library/app:v1"], "docker.io/library/app:v1", ""},
		{"@" + manifests["localhost:5000/x:1"], "localhost:5000/x:1", ""},
		{"tool", "", "ambiguous"},
		{"absent", "", `no image "absent"; there is "docker.io/library/app:latest"`},
		{"app:v2", "", "no image"},
		{"quay.io/app@" + manifests["localhost:5000/x:1"], "", "no image"},
		{"ff", "", "no image"},
		{"@../../etc", "", "no image"},
		{"@zz", "", "no image"},
	} {
		src, err := open(t, b.spec(), c.name)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: got error %v, want one that says %q", c.name, err, c.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.name, err)
			continue
		}
		if desc, err := src.Resolve(t.Context()); err != nil || desc.Digest.String() != manifests[c.want] {
			t.Errorf("%q: got %s and error %v, want %s", c.name, desc.Digest, err, c.want)
		}
	}
}

// TestFaults has stores that are damaged, or that a stranger wrote.
func TestFaults(t *testing.T) {
	layer := func(t *testing.T) []byte {
		return tarOf(t, entry{name: "dir/", kind: tar.TypeDir}, entry{name: "dir/file", content: "content"})
	}
	for name, c := range map[string]struct {
		harm func(t *testing.T, b *builder, rec map[string]any, dir string) // dir is the layer's
		want error
		says string
	}{
		"the file has another size": {func(t *testing.T, b *builder, _ map[string]any, dir string) {
			b.write(dir+"/dir/file", []byte("less"))
		}, remote.ErrDigest, "dir/file has 4 bytes, and had 7"},
		"the file is gone": {func(t *testing.T, b *builder, _ map[string]any, dir string) {
			harm(t, os.Remove(filepath.Join(b.root, dir, "dir/file")))
		}, remote.ErrDigest, "dir/file"},
		"the file is a link": {func(t *testing.T, b *builder, _ map[string]any, dir string) {
			b.write("outside", []byte("content"))
			harm(t, os.Remove(filepath.Join(b.root, dir, "dir/file")))
			harm(t, os.Symlink(filepath.Join(b.root, "outside"), filepath.Join(b.root, dir, "dir/file")))
		}, remote.ErrUnsupported, "it is a symbolic link"},
		"the directory is a link": {func(t *testing.T, b *builder, _ map[string]any, dir string) {
			b.write("outside/file", []byte("content"))
			harm(t, os.RemoveAll(filepath.Join(b.root, dir, "dir")))
			harm(t, os.Symlink(filepath.Join(b.root, "outside"), filepath.Join(b.root, dir, "dir")))
		}, remote.ErrUnsupported, "it is a symbolic link"},
		"the layer is a link": {func(t *testing.T, b *builder, _ map[string]any, dir string) {
			harm(t, os.Rename(filepath.Join(b.root, dir), filepath.Join(b.root, "outside")))
			harm(t, os.Symlink(filepath.Join(b.root, "outside"), filepath.Join(b.root, dir)))
		}, remote.ErrUnsupported, "is not a directory"},
		"the layer is gone": {func(t *testing.T, b *builder, rec map[string]any, dir string) {
			harm(t, os.RemoveAll(filepath.Join(b.root, dir)))
		}, nil, "no such file"},
		"no tar-split": {func(t *testing.T, b *builder, rec map[string]any, dir string) {
			harm(t, os.Remove(filepath.Join(b.root, "overlay-layers", rec["id"].(string)+".tar-split.gz")))
		}, remote.ErrUnsupported, "no tar-split"},
		"tar-split of another size":                {split(`{"type":2,"payload":"AAAA"}`), remote.ErrDigest, "a tar of 3 bytes"},
		"tar-split of a file with a negative size": {split(`{"type":1,"name":"dir/file","size":-7}`), remote.ErrUnsupported, "-7 bytes"},
		"tar-split of a huge file":                 {split(`{"type":1,"name":"dir/file","size":9223372036854775807}`), remote.ErrUnsupported, "more than 2560 bytes"},
		"tar-split of another type":                {split(`{"type":3}`), remote.ErrUnsupported, "type 3"},
		"tar-split that is no JSON":                {split("\x00"), remote.ErrUnsupported, "invalid tar-split"},
		"tar-split with a name that leads out":     {split(`{"type":1,"name":"../../../outside","size":2560}`), remote.ErrDigest, "diff/outside"},
		"tar-split with a long name":               {split(`{"type":1,"name":"` + strings.Repeat("a", 5000) + `","size":2560}`), remote.ErrUnsupported, "a name of 5000 bytes"},
		"tar-split with a zero byte in a name":     {split(`{"type":1,"name":"a\u0000b","size":2560}`), nil, "invalid argument"},
		"tar-split without a name":                 {split(`{"type":1,"size":2560}`), nil, "diff"},
		"no digest":                                {set("diff-digest", nil), remote.ErrUnsupported, "does not say the digest"},
		"zstd:chunked": {func(t *testing.T, b *builder, rec map[string]any, dir string) {
			rec["diff-digest"] = nil
			rec["toc-digest"] = digest.FromString("toc")
		}, remote.ErrUnsupported, "zstd:chunked"},
		"a digest that is none":      {set("diff-digest", "sha256:../../.."), remote.ErrUnsupported, "does not say the digest"},
		"a negative size":            {set("diff-size", -1), remote.ErrUnsupported, "said to have -1 bytes"},
		"a parent that is not there": {set("parent", id("absent")), remote.ErrUnsupported, "does not have it"},
		"a parent that leads out":    {set("parent", "../../etc"), remote.ErrUnsupported, "does not have it"},
		"itself as parent":           {func(t *testing.T, b *builder, rec map[string]any, dir string) { rec["parent"] = rec["id"] }, remote.ErrUnsupported, "more than 4096 layers"},
		"an ID that leads out":       {set("id", "../../etc"), remote.ErrUnsupported, "does not have it"},
		"composefs": {func(t *testing.T, b *builder, rec map[string]any, dir string) {
			b.write("overlay/"+rec["id"].(string)+"/composefs-data/composefs.blob", nil)
		}, remote.ErrUnsupported, "composefs"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, "overlay")
			b.simple("localhost/x:latest", layer(t))
			rec := b.layers[0]
			c.harm(t, b, rec, b.dir(rec["id"].(string)))
			b.save()
			err := readImage(t, b, "x")
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got error %v, want %v that says %q", err, c.want, c.says)
			}
			var store *remote.StoreError
			if errors.Is(err, remote.ErrUnsupported) && (!errors.As(err, &store) || !strings.Contains(store.Command, "podman --root "+b.root+" --storage-driver overlay save -o image.tar x")) {
				t.Errorf("error %v does not say a command", err)
			}
		})
	}
}

func harm(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// split replaces the tar-split of the layer.
func split(text string) func(*testing.T, *builder, map[string]any, string) {
	return func(t *testing.T, b *builder, rec map[string]any, _ string) {
		b.write("overlay-layers/"+rec["id"].(string)+".tar-split.gz", gzipped(t, []byte(text)))
	}
}

// set changes a member of the record of the layer.
func set(name string, value any) func(*testing.T, *builder, map[string]any, string) {
	return func(_ *testing.T, _ *builder, rec map[string]any, _ string) { rec[name] = value }
}

// readImage opens an image and reads its layers.
func readImage(t *testing.T, b *builder, name string) error {
	t.Helper()
	src, err := open(t, b.spec(), name)
	if err != nil {
		return err
	}
	img, err := remote.Open(t.Context(), src, "linux/amd64")
	if err != nil {
		return err
	}
	for _, l := range img.Layers {
		if content, err := readLayer(t, l); err != nil {
			return err
		} else if digest.FromBytes(content) != l.Digest() {
			return remote.ErrDigest
		}
	}
	return nil
}

// TestBadLists has lists of images that are wrong.
func TestBadLists(t *testing.T) {
	for name, c := range map[string]struct{ list, says string }{
		"no JSON":       {"{", "no JSON array"},
		"no array":      {`{"id":"x"}`, "no JSON array"},
		"null":          {"null", "no image"},
		"nulls":         {"[null,null]", "no image"},
		"empty":         {"", "no image"},
		"cut off":       {`[{"id":"`, "images.json"},
		"wrong types":   {`[{"id":7}]`, "images.json"},
		"ID leads out":  {`[{"id":"../../../x","names":["localhost/x:latest"]}]`, "no image"},
		"very deep":     {strings.Repeat("[", 100_000), "images.json"},
		"very many":     {"[" + strings.Repeat("{},", 1<<20) + "{}]", "more than 1048576 entries"},
		"no file there": {`[{"id":"` + id("x") + `","names":["localhost/x:latest"]}]`, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, "overlay")
			b.save()
			b.write("overlay-images/images.json", []byte(c.list))
			if err := readImage(t, b, "x"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got error %v, want one that says %q", err, c.says)
			}
		})
	}
}
