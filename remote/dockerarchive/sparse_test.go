package dockerarchive_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
)

// oldSparse is a member of GNU tar's old sparse format: a file of size bytes that
// ends with data.
func oldSparse(name string, size int64, data string) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        S", 0o644, 0, 0, len(data), 0))
	copy(b[257:], "ustar  \x00")
	number := func(field []byte, n int64) { // base 256
		for i := range 8 {
			field[11-i] = byte(n >> (8 * i))
		}
		field[0] = 0x80
	}
	number(b[386:398], size-int64(len(data)))
	number(b[398:410], int64(len(data)))
	number(b[483:495], size)
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(b, data...), make([]byte, -len(data)&511)...)
}

// An archive all of whose members are sparse files is the same image.
func TestSparseArchive(t *testing.T) {
	layer := layerTar(t, strings.Repeat("x", 4096)+strings.Repeat("\x00", 1<<20)+"end")
	packed := zipped(t, layerTar(t, "packed"))
	d1, d2 := digest.FromString(layer), digest.FromString(layerTar(t, "packed"))
	config := configOf(d1, d2)
	manifest := `[{"Config":"c.json","RepoTags":["x:1"],"Layers":["d/layer.tar","./p.tar.gz"]}]`
	plain := archiveOf(t, entry{name: "d/layer.tar", content: layer}, entry{name: "p.tar.gz", content: packed}, entry{name: "c.json", content: config}, entry{name: "manifest.json", content: manifest})
	var old []byte
	for _, e := range []entry{{name: "manifest.json", content: manifest}, {name: "c.json", content: config}, {name: "p.tar.gz", content: packed}} {
		old = append(old, oldSparse(e.name, int64(len(e.content)), e.content)...)
	}
	// The tar of a layer ends with zeros, but does not begin with them.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "d/layer.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := 0; off < len(layer); off += 4096 {
		if block := layer[off:min(off+4096, len(layer))]; strings.Trim(block, "\x00") != "" {
			if _, err := f.WriteAt([]byte(block), int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Truncate(int64(len(layer))); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"--format=gnu", "--sparse-version=1.0"} {
		tail, err := exec.Command("tar", format, "-S", "--hole-detection=raw", "-C", dir, "-cf", "-", "d/layer.tar").Output()
		if err != nil {
			t.Skipf("no GNU tar: %v", err)
		}
		if len(tail) > 100_000 {
			t.Fatalf("%s: %d bytes: the hole is in the archive", format, len(tail))
		}
		file := write(t, append(bytes.Clone(old), tail...))
		want, err := open(t, plain, "")
		if err != nil {
			t.Fatal(err)
		}
		src, err := open(t, file, "")
		if err != nil {
			t.Fatal(err)
		}
		a, err := remote.Open(t.Context(), want, "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Open(t.Context(), src, "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Raw, img.Raw) {
			t.Errorf("%s: another manifest: %s", format, img.Raw)
		}
		for i, want := range []string{layer, packed} {
			if got := content(t, img.Layers[i]); got != want {
				t.Errorf("%s: layer %d: got %d bytes that are not the %d packed", format, i, len(got), len(want))
			}
		}
		compareWithSkopeo(t, "docker-archive:"+file, img)
	}
}

// A member may say that it is of any size: it is refused by name, if it is larger
// than allowed, without that anything of that size is made.
func TestSparseClaims(t *testing.T) {
	layer := layerTar(t, "x")
	d := digest.FromString(layer)
	member := func(sparse, name, content string) []byte {
		if sparse == name {
			return oldSparse(name, 1<<60, content)
		}
		return oldSparse(name, int64(len(content)), content)
	}
	for sparse, want := range map[string]error{"manifest.json": remote.ErrTooBig, "c.json": remote.ErrTooBig, "l.tar": remote.ErrTooBig} {
		var archive []byte
		archive = append(archive, member(sparse, "l.tar", layer)...)
		archive = append(archive, member(sparse, "c.json", configOf(d))...)
		archive = append(archive, member(sparse, "manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`)...)
		file := write(t, append(archive, make([]byte, 1024)...))
		if _, err := open(t, file, ""); !errors.Is(err, want) || !strings.Contains(err.Error(), sparse) {
			t.Errorf("%s: got error %v, want %v that names it", sparse, err, want)
		}
		// Without a bound the documents have theirs, and the layer's size is seen by
		// who reads the manifest.
		src, err := dockerarchive.Open(t.Context(), file, "", &remote.ArchiveOptions{MaxSize: -1})
		if err == nil {
			_, err = remote.Open(t.Context(), src, "linux/amd64")
			src.Close()
		}
		if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), fmt.Sprint(1<<60)) {
			t.Errorf("%s without a bound: got error %v, want %v that has its size", sparse, err, remote.ErrUnsupported)
		}
	}
}
