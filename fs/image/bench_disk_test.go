package image_test

import (
	"archive/tar"
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// words returns n bytes that compress about as programs do.
func words(n int) string {
	r := rand.New(rand.NewPCG(3, 4))
	dict := make([]byte, 1<<16)
	for i := range dict {
		dict[i] = byte(r.Uint32())
	}
	b := make([]byte, 0, n+64)
	for len(b) < n {
		at := r.IntN(len(dict) - 64)
		b = append(b, dict[at:at+4+r.IntN(12)]...)
	}
	return string(b[:n])
}

// BenchmarkReadFromDisk reads what has to be read from the cache's disk and
// decoded, of each codec: in order, and 4 KiB here and there.
func BenchmarkReadFromDisk(b *testing.B) {
	const size = 24 << 20
	content := words(size)
	gz := gzipLayer(b, "a", content)
	plain := tarLayer(b, "a", content)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		b.Fatal(err)
	}
	var frames []byte
	for rest := plain.Content; len(rest) > 0; {
		n := min(len(rest), 1<<20)
		frames = enc.EncodeAll(rest[:n], frames)
		rest = rest[n:]
	}
	zst := sourcetest.Layer{Content: frames, MediaType: ocispec.MediaTypeImageLayerZstd, DiffID: plain.DiffID}
	for _, l := range []struct {
		name  string
		layer sourcetest.Layer
	}{{"gzip", gz}, {"zstd", zst}, {"plain", plain}} {
		o := newOpened(b, l.layer)
		img, err := remote.Open(b.Context(), o.src, "")
		if err != nil {
			b.Fatal(err)
		}
		disk, err := cache.Open(o.dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { disk.Close() })
		tree, err := image.New(b.Context(), img, &image.Options{Cache: disk, SpanMemory: 1, NoKeptFiles: true})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { tree.Close() })
		n, err := tree.Tree().Lookup("a", false)
		if err != nil {
			b.Fatal(err)
		}
		ratio := float64(len(l.layer.Content)) / size
		p := make([]byte, 128<<10)
		read := func(b *testing.B, p []byte, off int64) {
			if _, err := n.ReadAt(b.Context(), p, off); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
		for off := int64(0); off < size; off += int64(len(p)) { // once, so that all is checked
			if _, err := n.ReadAt(b.Context(), p, off); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(l.name+"/sequential", func(b *testing.B) {
			b.SetBytes(size)
			b.ReportMetric(ratio, "ratio")
			for b.Loop() {
				for off := int64(0); off < size; off += int64(len(p)) {
					read(b, p, off)
				}
			}
		})
		b.Run(l.name+"/random", func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				read(b, p[:4096], r.Int64N(size/4096)*4096)
			}
		})
	}
}

// tarLayer is a layer of one file that is not compressed.
func tarLayer(t testing.TB, name, content string) sourcetest.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return sourcetest.Layer{Content: buf.Bytes(), MediaType: ocispec.MediaTypeImageLayer, DiffID: digest.FromBytes(buf.Bytes())}
}
