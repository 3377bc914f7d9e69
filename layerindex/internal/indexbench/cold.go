package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
)

const (
	coldReads    = 100
	coldReadSize = 4 << 10
)

// coldRead measures single reads in places that nobody has read before. The
// index is there, as in a mounted image.
func (b *bench) coldRead() error {
	for _, in := range b.inputs {
		b.logf("cold reads of %s", in.name)
		if err := b.coldOne(in); err != nil {
			return fmt.Errorf("%s: %w", in.name, err)
		}
	}
	return nil
}

func (b *bench) coldOne(in *input) error {
	x, err := b.index(in)
	if err != nil {
		return err
	}
	offsets := randomOffsets(in.tarSize, coldReads)
	want, err := plainRanges(in, offsets)
	if err != nil {
		return err
	}
	inflated, err := inflatedFor(in, offsets)
	if err != nil {
		return err
	}
	blob, err := in.open()
	if err != nil {
		return err
	}
	defer blob.Close()
	samples, err := inTurns(b.ctx, b.runs, []task{{"cold reads", syscall.RUSAGE_SELF, func() error {
		blob.asked.Store(0)
		return readEach(b.ctx, x, blob, offsets, want)
	}}})
	if err != nil {
		return err
	}
	b.add(figure{Name: in.name + ": inflated", Unit: "KiB", Ours: float64(inflated) / coldReads / 1024, WantMost: 1024})
	b.add(figure{Name: in.name + ": CPU time", Unit: "ms", Ours: samples[0].cpu.Seconds() * 1e3 / coldReads, WantMost: 2})
	b.add(figure{Name: in.name + ": asked of the blob", Unit: "KiB", Ours: float64(blob.asked.Load()) / coldReads / 1024})
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
func readEach(ctx context.Context, x *layerindex.Index, blob layerindex.Blob, offsets []int64, want [][]byte) error {
	p := make([]byte, coldReadSize)
	opts := &layerindex.ReaderOptions{Cache: layerindex.NewSpanCache(16 << 20)}
	for i, off := range offsets {
		r := layerindex.NewReader(x, blob, opts)
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

// plainRanges returns what is at offsets, which are in order, by a peer.
func plainRanges(in *input, offsets []int64) ([][]byte, error) {
	c := &rangeCutter{offsets: offsets, got: make([][]byte, len(offsets))}
	return c.got, klauspost.decode(context.Background(), in.Path, c)
}

// A rangeCutter keeps ranges of what is written to it.
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

// inflatedFor returns how many bytes have to be inflated to read at all
// offsets, each from the last checkpoint before it. A Reader does that and
// does not tell, so it is done here with the decoder alone.
func inflatedFor(in *input, offsets []int64) (int64, error) {
	f, err := os.Open(in.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	points, err := checkpoints(f)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, off := range offsets {
		after, found := slices.BinarySearchFunc(points, off, func(p codec.Checkpoint, off int64) int { return cmp.Compare(p.Out, off) })
		if !found {
			after--
		}
		n, err := inflatedUntil(f, points[after], min(off+coldReadSize, in.tarSize))
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// checkpoints returns those of a gzip file.
func checkpoints(f io.Reader) ([]codec.Checkpoint, error) {
	x := gzip.NewIndexer(f, nil)
	var points []codec.Checkpoint
	for {
		_, err := x.Next()
		points = append(points, x.Checkpoints()...)
		if err == io.EOF {
			return points, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// inflatedUntil returns how many bytes come out of a decoder from a checkpoint
// on until it has passed the byte at out.
func inflatedUntil(f io.ReadSeeker, from codec.Checkpoint, out int64) (int64, error) {
	if _, err := f.Seek(from.In, io.SeekStart); err != nil {
		return 0, err
	}
	d, err := gzip.Resume(f, from)
	if err != nil {
		return 0, err
	}
	var n int64
	for from.Out+n < out {
		p, err := d.Next()
		if err != nil {
			return 0, err
		}
		n += int64(len(p))
	}
	return n, nil
}
