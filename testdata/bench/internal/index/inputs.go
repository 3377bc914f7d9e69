package index

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
)

// An input is a gzip layer that is measured.
type input struct {
	labimage.Input
	index   *layerindex.Index // built once
	tarSize int64             // in bytes
}

// findInputs finds or makes the inputs, and their indexes; if only is not
// empty, only that one.
func (b *bench) findInputs(only string) error {
	b.logf("making inputs")
	all, err := labimage.Inputs(b.dir, b.corpora, only)
	if err != nil {
		return err
	}
	for _, in := range all {
		x, err := build(b.ctx, &in)
		if err != nil {
			return err
		}
		b.inputs = append(b.inputs, &input{in, x, x.Size()})
	}
	return nil
}

// build makes a layer's index as imgfs does.
func build(ctx context.Context, in *labimage.Input) (*layerindex.Index, error) {
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return layerindex.Build(ctx, layerindex.Layer{Digest: in.Digest, Size: in.Size, DiffID: in.DiffID}, f, nil)
}

// node is the layout of the lab's node image; "" if there is none.
func (b *bench) node() string {
	if b.corpora == "" {
		return ""
	}
	return filepath.Join(b.corpora, "built", "node")
}

// open opens the layer for reading parts of it.
func (in *input) open() (*fileBlob, error) {
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	return &fileBlob{in: in, f: f}, nil
}

// A fileBlob is a layer's blob in a file. It counts the bytes it was asked for.
type fileBlob struct {
	in    *input
	f     *os.File
	asked atomic.Int64
}

var (
	_ layerindex.Blob = (*fileBlob)(nil)
	_ io.Closer       = (*fileBlob)(nil)
)

// Digest implements layerindex.Blob.
func (b *fileBlob) Digest() digest.Digest { return b.in.Digest }

// Size implements layerindex.Blob.
func (b *fileBlob) Size() int64 { return b.in.Size }

// Close implements io.Closer.
func (b *fileBlob) Close() error { return b.f.Close() }

// ReadAt implements layerindex.Blob.
func (b *fileBlob) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	b.asked.Add(int64(len(p)))
	return b.f.ReadAt(p, off)
}
