package reader

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// claim is what a truthful image says of a layer.
func claim(blob, tar []byte) layerindex.Layer {
	return layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromBytes(tar)}
}

func mustBuild(t testing.TB, blob, tar []byte, opts *build.Options) *layerindex.Index {
	t.Helper()
	x, err := build.Index(context.Background(), claim(blob, tar), bytes.NewReader(blob), opts)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// A starter is Spans or a layout.
type starter interface {
	Start(i int) (out, in int64)
}

// startOut returns where in the tar span i begins.
func startOut(s starter, i int) int64 {
	out, _ := s.Start(i)
	return out
}

// startIn returns where in the blob span i begins.
func startIn(s starter, i int) int64 {
	_, in := s.Start(i)
	return in
}

// pointsOf returns the checkpoints of all spans.
func pointsOf(t testing.TB, s *layerindex.Spans) []codec.Checkpoint {
	t.Helper()
	var list []codec.Checkpoint
	for i := range s.Len() {
		p, err := s.Checkpoint(i)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// encoded returns the index file.
func encoded(t testing.TB, x *layerindex.Index) []byte {
	t.Helper()
	var buf bytes.Buffer
	if n, err := x.WriteTo(&buf); err != nil || n != x.EncodedSize() {
		t.Fatalf("WriteTo = %d, %v; size %d", n, err, x.EncodedSize())
	}
	return buf.Bytes()
}

func readAll(t *testing.T, r *Reader, off, size int64) []byte {
	t.Helper()
	p := make([]byte, size)
	if n, err := r.ReadAt(context.Background(), p, off); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", size, off, n, err)
	}
	return p
}

// inDir returns what makes files without a name in a directory.
func inDir(dir string) func(int64) (TempFile, error) {
	return func(int64) (TempFile, error) {
		f, err := samples.TempFile(dir)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}
