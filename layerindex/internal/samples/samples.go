// Package samples makes layers for the tests of layerindex and of what is below
// it.
package samples

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A Blob is a verified blob in memory.
type Blob []byte

// Size returns its length.
func (b Blob) Size() int64 { return int64(len(b)) }

// ReadAt implements reader.Blob.
func (b Blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return bytes.NewReader(b).ReadAt(p, off)
}

// Tar returns a tar with files of about size bytes in all, and with one
// entry of every other kind.
func Tar(t testing.TB, size int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	rng := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 1<<16)
	for i := range text {
		text[i] = "etaoin shrdlu\n"[rng.IntN(14)]
	}
	add := func(h *tar.Header, content []byte) {
		t.Helper()
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, nil)
	for i := 0; buf.Len() < size; i++ {
		var content []byte
		for n := rng.IntN(1 + size/8); len(content) < n; {
			at := rng.IntN(len(text))
			content = append(content, text[at:min(len(text), at+n-len(content), at+2000)]...)
		}
		name := fmt.Sprintf("etc/dir%d/file%d", i%3, i)
		add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Uid: i, ModTime: time.Unix(1_600_000_000+int64(i*i), 0)}, content)
	}
	add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/link", Linkname: "dir0/file0", Mode: 0o777}, nil)
	add(&tar.Header{Typeflag: tar.TypeLink, Name: "etc/hard", Linkname: "etc/dir0/file0"}, nil)
	add(&tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	add(&tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Mode: 0o660, Devmajor: 8}, nil)
	add(&tar.Header{Typeflag: tar.TypeFifo, Name: "run/pipe", Mode: 0o4600}, nil)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "caps", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00", "SCHILY.xattr.user.b": "2"}}, []byte("x"))
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "caps2", PAXRecords: map[string]string{"SCHILY.xattr.user.b": "2"}}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Gzip compresses b.
func Gzip(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// ZstdFrames compresses b in frames of size bytes each.
func ZstdFrames(t testing.TB, b []byte, size int) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var out []byte
	for part := range slices.Chunk(b, size) {
		out = w.EncodeAll(part, out)
	}
	return out
}

// Codecs are the wrappings of a layer. Want is the codec that its index names.
var Codecs = []struct {
	Name string
	Wrap func(t testing.TB, tar []byte) []byte
	Want string
}{
	{"plain", func(_ testing.TB, b []byte) []byte { return b }, "tar"},
	{"gzip", Gzip, "gzip"},
	{"gzip of several members", func(t testing.TB, b []byte) []byte {
		return slices.Concat(Gzip(t, b[:len(b)/3]), Gzip(t, nil), Gzip(t, b[len(b)/3:]))
	}, "gzip"},
	{"gzip with garbage behind it", func(t testing.TB, b []byte) []byte { return append(Gzip(t, b), "garbage"...) }, "gzip"},
	{"zstd", func(t testing.TB, b []byte) []byte { return ZstdFrames(t, b, len(b)) }, "zstd"},
	{"zstd of several frames", func(t testing.TB, b []byte) []byte { return ZstdFrames(t, b, 100_000) }, "zstd"},
	{"zstd with a skippable frame first", func(t testing.TB, b []byte) []byte {
		return slices.Concat([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}, ZstdFrames(t, b, 1<<20))
	}, "zstd"},
}

// TarOf returns a tar of one file.
func TarOf(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
