package index

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/layerindex/zstdchunked"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
)

// leastGain is how many times as much CPU time as an index of others the pass should take.
const leastGain = 10

// A twin is an input in another form, with an index that its maker made.
type twin struct {
	*input
	kind        foreign.Kind
	annotations map[string]string
	ztoc        []byte
}

// twin returns the layer of an image that is an input in another form. The error wraps
// foreign.ErrNone if it is not there.
func (b *bench) twin(in *input, kind foreign.Kind) (*twin, error) {
	img, err := b.others.Image(kind, cmp.Or(in.ImageName, in.Name), in.Image)
	if err != nil {
		return nil, err
	}
	l := foreign.Layer(img, in.Number)
	t := &twin{kind: kind, annotations: img.Manifest.Layers[in.Number].Annotations, input: &input{Input: labimage.Input{
		Name: in.Name + ", " + kind.Name, Path: img.Blob(l.Digest), Digest: l.Digest, Size: l.Size, DiffID: l.DiffID}}}
	if kind == foreign.SOCI {
		t.ztoc, err = foreign.Ztoc(img, l.Digest)
	}
	return t, err
}

// layer describes an input.
func (in *input) layer() layerindex.Layer {
	return layerindex.Layer{Digest: in.Digest, Size: in.Size, DiffID: in.DiffID}
}

// read makes an index of what the layer's maker made.
func (t *twin) read(ctx context.Context, blob *fileBlob) (*layerindex.Index, error) {
	switch t.kind {
	case foreign.EStargz:
		return estargz.Index(ctx, t.layer(), blob, &estargz.Options{TOCDigest: digest.Digest(t.annotations[estargz.TOCDigestAnnotation])})
	case foreign.ZstdChunked:
		a, err := zstdchunked.Annotated(t.annotations)
		if err != nil {
			return nil, err
		}
		return zstdchunked.Index(ctx, t.layer(), blob, &zstdchunked.Options{Annotations: a})
	}
	return soci.Index(ctx, t.layer(), t.ztoc, nil)
}

// making compares the CPU time of making an index of an input from one that somebody
// else made with that of a pass over the same layer.
func (b *bench) making(in *input) error {
	for _, kind := range []foreign.Kind{foreign.EStargz, foreign.ZstdChunked, foreign.SOCI} {
		t, err := b.twin(in, kind)
		if err := b.makingOf(in.Name+", "+kind.Name, t, err, leastGain); err != nil {
			return err
		}
	}
	t, err := b.withTarSplit(in)
	if err := b.makingOf(in.Name+", tar-split of zstd:chunked", t, err, 0); err != nil {
		return err
	}
	return b.makingPublished(in)
}

// withTarSplit returns an input as zstd:chunked, with a name that only the tar-split can
// have.
func (b *bench) withTarSplit(in *input) (*twin, error) {
	path := filepath.Join(b.Dir, in.Name+"-latin1")
	c, err := b.others.Convert("zstdchunked-latin1", in.Path, path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &twin{kind: foreign.ZstdChunked, annotations: c.Annotations, input: &input{Input: labimage.Input{
		Name: in.Name, Path: path, Digest: d, Size: info.Size(), DiffID: c.DiffID}}}, nil
}

// makingOf adds the row of one twin. Missing says why there is none.
func (b *bench) makingOf(name string, t *twin, missing error, least float64) error {
	if errors.Is(missing, foreign.ErrNone) {
		b.Add(figures.Figure{Name: name, Unit: "s", Missing: missing.Error()})
		return nil
	}
	if missing != nil {
		return missing
	}
	blob, err := t.open()
	if err != nil {
		return err
	}
	defer blob.Close()
	f, err := b.gain(t.input, func() error {
		blob.asked.Store(0)
		x, err := t.read(b.Ctx, blob)
		if err != nil {
			return err
		}
		return x.Close()
	})
	f.Name, f.AtLeast = name, least
	f.Note = figures.Megabytes(blob.asked.Load()+int64(len(t.ztoc))) + " read"
	b.Add(f)
	return err
}

// makingPublished is making from a published index of imgfs, of which everything is read
// and checked.
func (b *bench) makingPublished(in *input) error {
	var index, digests bytes.Buffer
	if err := in.index.WritePublished(&index, &digests); err != nil {
		return err
	}
	f, err := b.gain(in, func() error {
		x, err := layerindex.OpenPublished(bytes.NewReader(index.Bytes()), int64(index.Len()), bytes.NewReader(digests.Bytes()), nil)
		if err != nil {
			return err
		}
		return errors.Join(x.Verify(b.Ctx), x.Close())
	})
	f.Name += ", published by imgfs"
	f.Note = figures.Megabytes(int64(index.Len()+digests.Len())) + " read: all of it, of which a mount reads less"
	b.Add(f)
	return err
}

// gain compares something with the pass over a layer.
func (b *bench) gain(in *input, do func() error) (figures.Figure, error) {
	samples, err := b.InTurns(min(b.Runs, 3), []runner.Task{
		{Name: in.Name, Who: syscall.RUSAGE_SELF, Run: do},
		{Name: "the pass", Who: syscall.RUSAGE_SELF, Run: func() error {
			_, err := makeIndex(b.Ctx, &in.Input)
			return err
		}},
	})
	if err != nil {
		return figures.Figure{}, err
	}
	return figures.Figure{Name: in.Name, Unit: "s", Ours: samples[0].CPU.Seconds(), Peer: "the pass", Theirs: samples[1].CPU.Seconds(), AtLeast: leastGain}, nil
}
