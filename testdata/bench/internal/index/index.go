// Package index measures the layer index beside its peers: the pass that makes
// an index, its size, loading it, and reading through it.
package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
)

// Options are the settings of this group alone.
type Options struct {
	Pull bool // compare with podman pull, which takes minutes
}

// A bench is one run of the group.
type bench struct {
	*runner.Runner
	opts   Options
	inputs []*input
	ztocs  map[string]ztoc // by input
	others *foreign.Maker
	// sociProgram compiles SOCI's builder, once.
	sociProgram func() (string, error)
}

// New returns the group.
func New(r *runner.Runner, opts Options) runner.Group {
	b := &bench{Runner: r, opts: opts, ztocs: map[string]ztoc{}, others: foreign.New(r)}
	b.sociProgram = sync.OnceValues(func() (string, error) { return b.Compile("sociztoc", "CGO_ENABLED=1") })
	flags := ""
	if opts.Pull {
		flags = " -pull"
	}
	return runner.Group{
		Name: "index", Title: "The layer index", Runs: 5, Flags: flags, Prepare: b.findInputs,
		Sections: []runner.Section{
			{Name: "pass", Title: "The full pass with all hashes", Run: b.eachInput(b.pass)},
			{Name: "soci", Title: "The full pass against SOCI's ztoc builder, wall time", Run: b.eachInput(b.soci)},
			{Name: "index", Title: "imgfs index of the node image from a registry on loopback", Run: b.indexImage},
			{Name: "size", Title: "Size of the index", Run: b.eachInput(b.size)},
			{Name: "load", Title: "Loading: cold index files to the merged tree, in a new process", Run: b.load},
			{Name: "cold", Title: "A cold read of 4 KiB, mean of 100", Run: b.eachInput(b.cold)},
			{Name: "sequential", Title: "Reading a whole layer in requests of 128 KiB, wall time", Run: b.eachInput(b.sequential)},
			{Name: "foreign", Title: "Making an index from one that somebody else made, CPU time", Run: b.eachReal(b.making)},
			{Name: "contents", Title: "Reading all files of a layer by its table of contents", Run: b.eachReal(b.contents)},
		},
	}
}

// An input is a gzip layer that is measured.
type input struct {
	labimage.Input
	index *layerindex.Index
}

// findInputs finds or makes the inputs, and their indexes.
func (b *bench) findInputs() error {
	if b.Corpora == "" {
		b.Logf("CORPORA is not set: without the lab's images")
	}
	b.Logf("making inputs")
	_, only, _ := strings.Cut(b.Only, "/")
	all, err := labimage.Inputs(b.Dir, b.Corpora, only)
	if err != nil {
		return err
	}
	for _, in := range all {
		x, err := makeIndex(b.Ctx, &in)
		if err != nil {
			return fmt.Errorf("%s: %w", in.Name, err)
		}
		b.inputs = append(b.inputs, &input{in, x})
		b.Group.Notes = append(b.Group.Notes, fmt.Sprintf("%s: %s, blob %s, tar %s, %.2f : 1", in.Name, in.What,
			figures.Megabytes(in.Size), figures.Megabytes(x.Size()), float64(x.Size())/float64(in.Size)))
	}
	return nil
}

// eachInput returns a section that measures all inputs.
func (b *bench) eachInput(measure func(*input) error) func() error {
	return func() error {
		for _, in := range b.inputs {
			b.Logf("%s", in.Name)
			if err := measure(in); err != nil {
				return fmt.Errorf("%s: %w", in.Name, err)
			}
		}
		return nil
	}
}

// eachReal is eachInput without those that were made for the bench.
func (b *bench) eachReal(measure func(*input) error) func() error {
	return b.eachInput(func(in *input) error {
		if in.Made || b.Corpora != "" && in.ImageName == "" {
			return nil
		}
		return measure(in)
	})
}

// makeIndex makes a layer's index as imgfs does.
func makeIndex(ctx context.Context, in *labimage.Input) (*layerindex.Index, error) {
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return build.Index(ctx, layerindex.Layer{Digest: in.Digest, Size: in.Size, DiffID: in.DiffID}, f, nil)
}

// open opens the layer for reading parts of it.
func (in *input) open() (*fileBlob, error) {
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	return &fileBlob{File: f, in: in}, nil
}

// newTemp makes a temporary file for a reader. It is gone when it is closed.
func newTemp(int64) (reader.TempFile, error) {
	f, err := os.CreateTemp("", "imgfs-bench-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// A fileBlob is a layer's blob in a file. It counts the bytes it was asked for.
type fileBlob struct {
	*os.File
	in    *input
	asked atomic.Int64
}

var _ reader.Blob = (*fileBlob)(nil)

// Digest implements reader.Blob.
func (b *fileBlob) Digest() digest.Digest { return b.in.Digest }

// Size implements reader.Blob.
func (b *fileBlob) Size() int64 { return b.in.Size }

// ReadAt implements reader.Blob.
func (b *fileBlob) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	b.asked.Add(int64(len(p)))
	return b.File.ReadAt(p, off)
}
