package index

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/peers"
)

const (
	coldReads    = 100
	coldReadSize = 4 << 10
)

// cold measures single reads in places that were not read before. The index is
// there, as in a mounted image.
func (b *bench) cold(in *input) error {
	offsets := randomOffsets(in.index.Size(), coldReads)
	want, err := plainRanges(in, offsets)
	if err != nil {
		return err
	}
	blob, err := in.open()
	if err != nil {
		return err
	}
	defer blob.Close()
	samples, err := b.InTurns(b.Runs, []runner.Task{{Name: "cold reads", Who: syscall.RUSAGE_SELF, Run: func() error {
		blob.asked.Store(0)
		return readEach(b.Ctx, in.index, blob, offsets, want)
	}}})
	if err != nil {
		return err
	}
	b.Add(
		figures.Figure{Name: in.Name + ": CPU time", Unit: "ms", Ours: samples[0].CPU.Seconds() * 1e3 / coldReads, AtMost: figures.Most(2)},
		figures.Figure{Name: in.Name + ": asked of the blob", Unit: "KiB", Ours: float64(blob.asked.Load()) / coldReads / 1024})
	return nil
}

// randomOffsets returns where n cold reads begin, in order.
func randomOffsets(size int64, n int) []int64 {
	rng := rand.New(rand.NewPCG(4, 4))
	offsets := make([]int64, n)
	for i := range offsets {
		offsets[i] = rng.Int64N(max(1, size-coldReadSize))
	}
	slices.Sort(offsets)
	return offsets
}

// readEach reads at each offset with a new reader, which has nothing decoded,
// and compares. The cache, and with it the decoders' memory, is one, as it is
// for all layers of a mount.
func readEach(ctx context.Context, x *layerindex.Index, blob reader.Blob, offsets []int64, want [][]byte) error {
	p := make([]byte, coldReadSize)
	opts := &reader.Options{Cache: reader.NewSpanCache(16 << 20), NewTemp: newTemp}
	for i, off := range offsets {
		r := reader.New(x, blob, opts)
		n, err := r.ReadAt(ctx, p, off)
		if err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(p[:n], want[i]) {
			return fmt.Errorf("%d bytes at %d are not what klauspost gzip has", n, off)
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

// plainRanges returns the bytes at offsets, which are in order, by a peer.
func plainRanges(in *input, offsets []int64) ([][]byte, error) {
	c := &rangeCutter{offsets: offsets, got: make([][]byte, len(offsets))}
	return c.got, peers.Klauspost.Decode(context.Background(), in.Path, c)
}

// A rangeCutter keeps ranges of its input.
type rangeCutter struct {
	offsets []int64
	got     [][]byte
	at      int64
}

func (c *rangeCutter) Write(p []byte) (int, error) {
	end := c.at + int64(len(p))
	first := sort.Search(len(c.offsets), func(i int) bool { return c.offsets[i]+coldReadSize > c.at })
	for i := first; i < len(c.offsets) && c.offsets[i] < end; i++ {
		from, to := max(c.offsets[i], c.at), min(c.offsets[i]+coldReadSize, end)
		c.got[i] = append(c.got[i], p[from-c.at:to-c.at]...)
	}
	c.at = end
	return len(p), nil
}
