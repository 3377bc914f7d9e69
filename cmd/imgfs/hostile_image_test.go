//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A layerWriter writes the tar of a layer that is small once it is compressed.
type layerWriter struct {
	*tar.Writer
	raw io.Writer // that the Writer writes to
	t   testing.TB
}

// add adds an entry with size bytes of zeros.
func (w layerWriter) add(h tar.Header, size int64) {
	w.t.Helper()
	if h.Typeflag == 0 {
		h.Typeflag, h.Size = tar.TypeReg, size
	}
	if err := w.WriteHeader(&h); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeroReader{}, h.Size); err != nil {
		w.t.Fatal(err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// hugeLayer makes a layer as zstd.
func hugeLayer(t testing.TB, write func(w layerWriter)) sourcetest.Layer {
	t.Helper()
	var blob bytes.Buffer
	z, err := zstd.NewWriter(&blob, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	raw := io.MultiWriter(z, sum)
	w := layerWriter{tar.NewWriter(raw), raw, t}
	write(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return sourcetest.Layer{Content: blob.Bytes(), MediaType: ocispec.MediaTypeImageLayerZstd, DiffID: digest.NewDigest(digest.SHA256, sum)}
}

// layoutOf writes an image of layers to a directory and returns its name.
func layoutOf(t testing.TB, layers ...sourcetest.Layer) string {
	t.Helper()
	store, dir := sourcetest.NewStore(), filepath.Join(publicDir(t), "image")
	if err := store.WriteLayout(dir, store.AddImage(sourcetest.Image{Layers: layers})); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

func xattrs(values ...string) map[string]string {
	records := map[string]string{}
	for i, v := range values {
		records[fmt.Sprintf("SCHILY.xattr.user.%02d", i)] = v
	}
	return records
}

// A heavyKind is a way in which an image is hard on memory: n units of it count
// n times unit bytes, about.
type heavyKind struct {
	name    string
	unit    int64
	layers  func(t testing.TB, n int) []sourcetest.Layer
	light   bool // nothing of it is kept
	merging bool // it takes more when layers are merged: the pass may let it go
	always  bool // it is not only for nightly
}

// oneOf is an image of a layer of n entries.
func oneOf(add func(w layerWriter, i int)) func(t testing.TB, n int) []sourcetest.Layer {
	return func(t testing.TB, n int) []sourcetest.Layer {
		return []sourcetest.Layer{hugeLayer(t, func(w layerWriter) {
			for i := range n {
				add(w, i)
			}
		})}
	}
}

// sparseFile adds a file with n extents of a byte, as GNU tar's format 1.0 has it.
func sparseFile(w layerWriter, name string, n int) {
	w.t.Helper()
	var m bytes.Buffer
	fmt.Fprintf(&m, "%d\n", n)
	for i := range n {
		fmt.Fprintf(&m, "%d\n1\n", 2*i)
	}
	m.Write(make([]byte, -m.Len()&511))
	h := tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/" + name, Size: int64(m.Len() + n), PAXRecords: map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": fmt.Sprint(2 * n)}}
	rawSparse(w, h, append(m.Bytes(), make([]byte, n)...))
}

var (
	longPart   = strings.Repeat("n", 250)
	longTarget = strings.Repeat("t", 4095)
	bigValue   = strings.Repeat("v", 60_000)
)

// heavyKinds are the ways that there are.
var heavyKinds = []heavyKind{
	{"entries", 96, oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprintf("%d/%d", i/1000, i)}, 0) }), false, false, true},
	{"files of a byte", 96, oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprintf("%d/%d", i/1000, i)}, 1) }), false, false, false},
	{"one directory", 96, oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprintf("d/%d", i*7919%1_000_003)}, 0) }), false, false, false},
	{"names", 5500, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: fmt.Sprint(i, strings.Repeat("/"+longPart, 15))}, 0)
	}), false, true, false},
	{"names with a prefix", 4000, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: fmt.Sprint(strings.Repeat(longPart+"/", 15), i)}, 0)
	}), false, false, false},
	{"implied directories", 113_000, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: fmt.Sprint(i, strings.Repeat("/d", 1000))}, 0)
	}), false, true, true},
	{"targets", 4190, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint(i), Linkname: longTarget}, 0)
	}), false, false, false},
	{"attributes", 900_000, oneOf(func(w layerWriter, i int) {
		v := fmt.Sprint(i, bigValue)
		w.add(tar.Header{Name: fmt.Sprint(i), PAXRecords: xattrs(v, v, v, v, v, v, v, v, v, v, v, v, v, v, v)}, 0)
	}), false, false, true},
	{"small attributes", 220, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: fmt.Sprint(i), PAXRecords: xattrs(fmt.Sprint(i))}, 0)
	}), false, false, false},
	{"attributes of hard links", 60_300, oneOf(func(w layerWriter, i int) {
		h := tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint("l", i), Linkname: fmt.Sprint("f", i&^511), PAXRecords: map[string]string{fmt.Sprintf("SCHILY.xattr.user.%d", i): bigValue}}
		if i&511 == 0 {
			h.Typeflag, h.Name = tar.TypeReg, h.Linkname
		}
		w.add(h, 0)
	}), false, false, true},
	{"extents", 24 * 100_000, oneOf(func(w layerWriter, i int) { sparseFile(w, fmt.Sprint(i), 100_000) }), false, false, true},
	{"small sparse files", 200, oneOf(func(w layerWriter, i int) { sparseFile(w, fmt.Sprint(i), 1) }), false, true, false},
	{"reserved names", 400, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: fmt.Sprint(".wh..wh.plnk/", longPart[:200], i)}, 0)
	}), false, true, false},
	{"whiteouts", 100, func(t testing.TB, n int) []sourcetest.Layer {
		base := oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprint(i)}, 0) })(t, n/2)
		return append(base, oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprint(".wh.", i)}, 0) })(t, n/2)...)
	}, false, false, false},
	{"the same layers again", 56, func(t testing.TB, n int) []sourcetest.Layer {
		var layers []sourcetest.Layer
		each := n / 40
		a := oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprint("a", i)}, 0) })(t, each)
		b := oneOf(func(w layerWriter, i int) { w.add(tar.Header{Name: fmt.Sprint("b", i)}, 0) })(t, each)
		for range 20 {
			layers = append(layers, a[0], b[0])
		}
		return layers
	}, false, true, false},
	{"layers side by side", 900_000, func(t testing.TB, n int) []sourcetest.Layer {
		var layers []sourcetest.Layer
		for k := range 8 {
			layers = append(layers, oneOf(func(w layerWriter, i int) {
				v := fmt.Sprint(k, " ", i, bigValue)
				w.add(tar.Header{Name: fmt.Sprint(i), PAXRecords: xattrs(v, v, v, v, v, v, v, v, v, v, v, v, v, v, v)}, 0)
			})(t, n/8)...)
		}
		return layers
	}, false, false, false},
	{"records that mean nothing", 900_000, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: "f", PAXRecords: map[string]string{"comment.x": strings.Repeat("c", 900_000)}}, 0)
	}), true, false, false},
	{"names of owners", 100_000, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Name: "f", Uname: strings.Repeat("u", 50_000), Gname: strings.Repeat("g", 50_000)}, 0)
	}), true, false, false},
	{"global headers", 900_000, oneOf(func(w layerWriter, i int) {
		w.add(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment.x": strings.Repeat("c", 900_000)}}, 0)
	}), true, false, false},
	{"attributes that are not kept", 900_000, oneOf(func(w layerWriter, i int) {
		v := bigValue
		w.add(tar.Header{Name: "f", PAXRecords: xattrs(v, v, v, v, v, v, v, v, v, v, v, v, v, v, v)}, 0)
	}), true, false, false},
}

// rawSparse writes a header that archive/tar does not write: its records say that
// the file is sparse.
func rawSparse(w layerWriter, h tar.Header, body []byte) {
	w.t.Helper()
	var records strings.Builder
	for _, k := range []string{"GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize"} {
		n := len(k) + len(h.PAXRecords[k]) + 3
		n += len(fmt.Sprint(n + len(fmt.Sprint(n))))
		fmt.Fprintf(&records, "%d %s=%s\n", n, k, h.PAXRecords[k])
	}
	var b bytes.Buffer
	inner := tar.NewWriter(&b)
	for _, part := range []struct {
		h    tar.Header
		body string
	}{{tar.Header{Typeflag: tar.TypeReg, Name: "paxheader", Size: int64(records.Len())}, records.String()}, {tar.Header{Typeflag: tar.TypeReg, Name: h.Name, Size: h.Size}, string(body)}} {
		if err := inner.WriteHeader(&part.h); err != nil {
			w.t.Fatal(err)
		}
		io.WriteString(inner, part.body)
	}
	if err := inner.Flush(); err != nil {
		w.t.Fatal(err)
	}
	raw := b.Bytes()
	raw[156] = 'x' // archive/tar writes no such record itself
	var sum int64
	copy(raw[148:156], "        ")
	for _, c := range raw[:512] {
		sum += int64(c)
	}
	copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
	if err := w.Flush(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.raw.Write(raw); err != nil {
		w.t.Fatal(err)
	}
}
