package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/peers"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// requestSize is the size of the kernel's FUSE requests when it reads ahead.
const requestSize = 128 << 10

// sequential compares reading all of a layer through a Reader, by one and by
// two goroutines, with gzip -dc.
func (b *bench) sequential(in *input) error {
	if err := b.checkSequential(in); err != nil {
		return err
	}
	read := func(parts int) func() error {
		return func() error { return b.readParts(in, parts, io.Discard) }
	}
	tasks := []runner.Task{{Name: "one reader", Run: read(1)}, {Name: "two readers, a half each", Run: read(2)}}
	missing := peers.GNU.Missing()
	if missing == "" {
		tasks = append(tasks, runner.Task{Name: peers.GNU.Name, Run: func() error { return peers.GNU.Decode(b.Ctx, in.Path, io.Discard) }})
	}
	samples, err := b.InTurns(min(b.Runs, 3), tasks)
	if err != nil {
		return err
	}
	for i, t := range tasks[:2] {
		f := figures.Figure{Name: in.Name + ": " + t.Name, Unit: "s", Ours: samples[i].Wall.Seconds(), Peer: "gzip -dc", PeerMissing: missing}
		if missing == "" {
			f.Theirs = samples[2].Wall.Seconds()
		}
		b.Add(f)
	}
	return nil
}

// checkSequential compares the digest of a Reader's output with the diff_id.
func (b *bench) checkSequential(in *input) error {
	h := sha256.New()
	if err := b.readParts(in, 1, h); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, h); got != in.DiffID {
		return fmt.Errorf("the reader gives %s, not %s", got, in.DiffID)
	}
	return nil
}

// readParts reads a layer in equal parts, all at the same time, and writes
// the bytes to w.
func (b *bench) readParts(in *input, parts int, w io.Writer) error {
	blob, err := in.open()
	if err != nil {
		return err
	}
	defer blob.Close()
	r := reader.New(in.index, blob, &reader.Options{NewTemp: newTemp})
	group, ctx := errgroup.WithContext(b.Ctx)
	for i := range int64(parts) {
		group.Go(func() error {
			return readAll(ctx, r, i*r.Size()/int64(parts), (i+1)*r.Size()/int64(parts), w)
		})
	}
	return errors.Join(group.Wait(), r.Close())
}

func readAll(ctx context.Context, r *reader.Reader, off, end int64, w io.Writer) error {
	buf := make([]byte, requestSize)
	for off < end {
		n, err := r.ReadAt(ctx, buf[:min(requestSize, end-off)], off)
		if err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
