package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/opencontainers/go-digest"
)

// An input is a gzip layer that is measured.
type input struct {
	layerFile
	name, what string
	// made says that it is none of real files, poor that it hardly compresses.
	made, poor bool
	// tarSize is the length of the tar in bytes; known once it was built.
	tarSize int64
}

// An inputRow is what the report says of an input.
type inputRow struct {
	Name    string        `json:"name"`
	What    string        `json:"what"`
	Digest  digest.Digest `json:"digest"`
	Size    int64         `json:"size"`
	TarSize int64         `json:"tarSize"`
}

func (in *input) row() inputRow {
	return inputRow{in.name, in.what, in.Digest, in.Size, in.tarSize}
}

// bigLayer is how many bytes a layer of the lab's node image must have to be an
// input: its first is much like base, and most are tiny.
const bigLayer = 60 << 20

// findInputs finds or makes the inputs; if only is not empty, only that one.
func (b *bench) findInputs(only string) error {
	if err := b.findLab(); err != nil {
		return err
	}
	made := []struct {
		in   input
		fill func(*tar.Writer) error
	}{
		{input{name: "go", what: "Go's own tree"}, goTree},
		{input{name: "poor", what: "measurements, and as if compressed before", made: true, poor: true}, poorFiles},
		{input{name: "high", what: "logs, JSON and zeros", made: true}, highFiles},
	}
	for _, m := range made {
		if only != "" && only != m.in.name {
			continue
		}
		b.logf("making the input %s", m.in.name)
		in := m.in
		var err error
		if in.layerFile, in.tarSize, err = writeLayer(filepath.Join(b.dir, in.name+".tar.gz"), usualGzip, m.fill); err != nil {
			return fmt.Errorf("input %s: %w", in.name, err)
		}
		b.inputs = append(b.inputs, &in)
	}
	if only != "" {
		b.inputs = pick(b.inputs, only)
	}
	if len(b.inputs) == 0 {
		return fmt.Errorf("no input is called %q", only)
	}
	return nil
}

func pick(inputs []*input, name string) []*input {
	for _, in := range inputs {
		if in.name == name {
			return []*input{in}
		}
	}
	return nil
}

// findLab adds the lab's images, if CORPORA says where they are.
func (b *bench) findLab() error {
	corpora := os.Getenv("CORPORA")
	if corpora == "" {
		b.logf("CORPORA is not set: without the lab's images")
		return nil
	}
	base, err := labLayers(b.ctx, filepath.Join(corpora, "built", "base"))
	if err != nil {
		return err
	}
	if b.node, err = labLayers(b.ctx, filepath.Join(corpora, "built", "node")); err != nil {
		return err
	}
	b.inputs = append(b.inputs, &input{layerFile: base[0], name: "base", what: "the lab's base image"})
	for i, l := range b.node {
		if l.Size >= bigLayer {
			b.inputs = append(b.inputs, &input{layerFile: l, name: fmt.Sprintf("node%d", i+1), what: fmt.Sprintf("layer %d of the lab's node image", i+1)})
		}
	}
	for _, in := range b.inputs {
		x, err := b.index(in)
		if err != nil {
			return err
		}
		in.tarSize = x.Size()
	}
	return nil
}

// labLayers returns the layers of an image in an OCI layout.
func labLayers(ctx context.Context, dir string) ([]layerFile, error) {
	src, err := ocilayout.Open(dir, "")
	if err != nil {
		return nil, err
	}
	img, err := remote.Open(ctx, src, "")
	if err != nil {
		return nil, err
	}
	var layers []layerFile
	for _, l := range img.Layers {
		path := filepath.Join(dir, "blobs", l.Digest().Algorithm().String(), l.Digest().Encoded())
		layers = append(layers, layerFile{Path: path, Digest: l.Digest(), Size: l.Size(), DiffID: l.DiffID})
	}
	if len(layers) == 0 {
		return nil, errors.New(dir + ": image without layers")
	}
	return layers, nil
}

// goTree fills a tar with the Go release in use.
func goTree(w *tar.Writer) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	root, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	return w.AddFS(os.DirFS(root))
}

// A layerFile is a layer in a file of its own.
type layerFile struct {
	Path   string        `json:"path"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	DiffID digest.Digest `json:"diffID"`
}

// build makes the layer's index as imgfs does.
func (l *layerFile) build(ctx context.Context) (*layerindex.Index, error) {
	f, err := os.Open(l.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return layerindex.Build(ctx, layerindex.Layer{Digest: l.Digest, Size: l.Size, DiffID: l.DiffID}, f, nil)
}

// open opens the layer for reading parts of it.
func (l *layerFile) open() (*fileBlob, error) {
	f, err := os.Open(l.Path)
	if err != nil {
		return nil, err
	}
	return &fileBlob{layer: *l, f: f}, nil
}

// A fileBlob is a layer's blob in a file. It counts the bytes it was asked for.
type fileBlob struct {
	layer layerFile
	f     *os.File
	asked atomic.Int64
}

var (
	_ remote.Blob     = (*fileBlob)(nil)
	_ layerindex.Blob = (*fileBlob)(nil)
	_ io.Closer       = (*fileBlob)(nil)
)

func (b *fileBlob) Digest() digest.Digest { return b.layer.Digest }
func (b *fileBlob) Size() int64           { return b.layer.Size }
func (b *fileBlob) Close() error          { return b.f.Close() }

func (b *fileBlob) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	b.asked.Add(int64(len(p)))
	return b.f.ReadAt(p, off)
}
