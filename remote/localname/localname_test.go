package localname_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/remote/localname"
)

// tarOf writes a tar of empty files.
func tarOf(t *testing.T, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func gzipped(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// put makes files below a directory, which becomes the working directory. Names that
// end in / are directories.
func put(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("HOME", dir)
	return dir
}

var hex = strings.Repeat("0123456789abcdef", 4)

func images(t *testing.T) map[string]string {
	both := tarOf(t, "blobs/", "blobs/sha256/"+hex, "index.json", "manifest.json", "oci-layout")
	return map[string]string{
		"layout/index.json": "{}", "layout/oci-layout": "{}", "layout/blobs/sha256/x": "", "UPPER/index.json": "{}",
		"docker.tar": tarOf(t, hex+"/layer.tar", "manifest.json"), "docker.tgz": gzipped(t, tarOf(t, hex+".tar", hex+".json", "manifest.json")),
		"first.tar.gz": gzipped(t, tarOf(t, hex+".tar")),
		"oci.tar":      tarOf(t, "./", "./oci-layout", "./index.json", "./blobs/"), "oci": tarOf(t, "index.json"), "blobs.tar": tarOf(t, "blobs/sha256/"+hex),
		"both.tar": both, "both.tar.gz": gzipped(t, both), "Upper": tarOf(t, "manifest.json"),
	}
}

// TestFind has names that are paths to images, and those that are none.
func TestFind(t *testing.T) {
	dir := put(t, images(t))
	for name, want := range map[string]string{
		"./layout": "oci:DIR/layout", "layout/": "oci:DIR/layout", dir + "/layout": "oci:DIR/layout", "./layout/": "oci:DIR/layout", "~/layout": "oci:DIR/layout",
		"./layout:v1": "oci:DIR/layout:v1", "./layout:@0": "oci:DIR/layout:@0", "layout/:v1": "oci:DIR/layout:v1",
		"./layout@sha256:" + hex: "oci:DIR/layout:@sha256:" + hex, "UPPER": "oci:DIR/UPPER", "UPPER:x": "oci:DIR/UPPER:x", "layout/../layout": "oci:DIR/layout",
		"docker.tar": "docker-archive:DIR/docker.tar", "./docker.tgz": "docker-archive:DIR/docker.tgz", "docker.tar:a/b:v1": "docker-archive:DIR/docker.tar:a/b:v1",
		"first.tar.gz": "docker-archive:DIR/first.tar.gz", "oci.tar": "oci-archive:DIR/oci.tar", "./oci": "oci-archive:DIR/oci", "./oci:v1": "oci-archive:DIR/oci:v1",
		"blobs.tar": "oci-archive:DIR/blobs.tar", "Upper": "docker-archive:DIR/Upper",
		"both.tar": "oci-archive:DIR/both.tar", "both.tar:app:v1": "oci-archive:DIR/both.tar:app:v1", "both.tar:v1": "oci-archive:DIR/both.tar:v1",
		"both.tar@sha256:" + hex: "oci-archive:DIR/both.tar:@sha256:" + hex, "both.tar.gz": "oci-archive:DIR/both.tar.gz",
		// These stay what they are.
		"layout": "", "oci": "", "oci:latest": "", "layout:v1": "", "docker://docker.tar": "", "oci:layout": "", "oci:docker.tar": "", "docker-archive:docker.tar": "",
		"fedora": "", "quay.io/a/b": "", "": "", "Nothing": "", "nothing/": "", "nothing.tar": "", "dir:layout": "", "-": "", "layout@sha256:" + hex: "", "a b": "",
	} {
		loc, ok, err := localname.Find(t.Context(), name)
		got := ""
		if ok {
			got = loc.String()
		}
		if want = strings.ReplaceAll(want, "DIR", dir); got != want || err != nil {
			t.Errorf("%q: got %q and error %v, want %q", name, got, err, want)
		}
	}
	if loc, err := localname.At(t.Context(), "layout"); err != nil || loc.Path != dir+"/layout" {
		t.Errorf("what lies at layout: got %v and error %v", loc, err)
	}
}

// TestNoImage has paths to what is no image, and the words for it.
func TestNoImage(t *testing.T) {
	files := images(t)
	for name, content := range map[string]string{
		"empty/": "", "root/etc/passwd": "", "root/usr/": "", "build/Dockerfile": "FROM x", "skopeo/manifest.json": "{}", "skopeo/version": "",
		"saved/manifest.json": `[{"Config":"x","Layers":[]}]`, "saved/repositories": "", "bundle/config.json": "{}", "bundle/rootfs/": "",
		"parent/app/index.json": "{}", "parent/x": "", "other/file": "",
		"export.tar": tarOf(t, "etc/", "etc/passwd", "usr/bin/x"), "layer.tar": tarOf(t, "a", "b"), "nested.tar": tarOf(t, "app/", "app/oci-layout"),
		"text": "hello", "none": "", "zip": "PK\x03\x04", "squash": "hsqs", "elf": "\x7fELF", "Containerfile": "FROM x",
		"x.tar.xz": "\xfd7zXZ\x00....", "bad.tgz": "\x1f\x8b\x08", "col:on/index.json": "{}", "bomb.tgz": gzipped(t, strings.Repeat("\x00", 1<<20)),
	} {
		files[name] = content
	}
	dir := put(t, files)
	if err := syscall.Mkfifo("fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, says, hint string }{
		{"./nothing", "no such file or directory", ""},
		{"/nothing/x:tag", "no such file or directory", ""},
		{"~nobody/x", "no such file or directory", ""},
		{"./text/x", "not a directory", ""},
		{"./layout:", "nothing follows the last colon", ""},
		{"./col:on", "cannot have a colon", "rename it"},
		{"./layout\n", "no such file", "without the space: ./layout"},
		{"./empty", "not an image: it is an empty directory", ""},
		{".", "can be built from", "podman build -t NAME . "},
		{"./root", "it is a directory tree that is no image", ""},
		{"root/", "it is a directory tree that is no image", ""},
		{"./build", "can be built from", "podman build -t NAME ./build"},
		{"./skopeo", "transport dir:", "skopeo copy dir:./skopeo oci:image"},
		{"./saved", "an archive of docker save, unpacked", "tar -C ./saved -cf image.tar ."},
		{"./bundle", "not an image: there is no index.json in it", ""},
		{"./parent", `has an OCI image layout in "app"`, "oci:parent/app"},
		{"./other", "not an image: there is no index.json in it", ""},
		{"./layout/blobs", "a part of the image layout", "oci:" + dir + "/layout"},
		{"./layout/blobs/sha256/x", "a part of the image layout", "oci:" + dir + "/layout"},
		{"./layout/index.json", "a part of the image layout", "oci:" + dir + "/layout"},
		{"export.tar", "docker export", "skopeo copy tarball:export.tar oci:image"},
		{"layer.tar", "neither manifest.json nor index.json", ""},
		{"nested.tar", `in its directory "app"`, ""},
		{"./text", "not an image: it is not a tar", ""},
		{"./none", "an empty file", ""},
		{"./zip", "a zip archive", ""},
		{"./squash", "a squashfs", ""},
		{"./elf", "an ELF program", ""},
		{"./Containerfile", "can be built from", "podman build -t NAME -f ./Containerfile"},
		{"x.tar.xz", "xz", ""},
		{"./bad.tgz", "data compressed with gzip", ""},
		{"./bomb.tgz", "not a tar", ""},
		{"./fifo", "no regular file", "docker-archive:./fifo or oci-archive:./fifo"},
	} {
		_, ok, err := localname.Find(t.Context(), c.name)
		var failed *localname.Error
		if ok || !errors.As(err, &failed) || !strings.Contains(err.Error(), c.says) || !strings.Contains(failed.Hint, c.hint) {
			t.Errorf("%s: got %v and error %+v, want %q and %q", c.name, ok, failed, c.says, c.hint)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := localname.Find(ctx, "./docker.tgz"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: error %v", err)
	}
}
