package gzip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/testdata/bench/peers"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// ours and indexer are what the peers are compared with.
var (
	ours = peers.Library("imgfs", func(w io.Writer, f *os.File) error {
		d, err := Resume(f, codec.Checkpoint{Start: true})
		if err != nil {
			return err
		}
		return drain(w, d)
	})
	indexer = peers.Library("imgfs with checkpoints", func(w io.Writer, f *os.File) error {
		return drain(w, NewIndexer(f, nil))
	})
)

// drain writes all output of a decoder.
func drain(w io.Writer, d codec.Decoder) error {
	for {
		p, err := d.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		if x, ok := d.(codec.Indexer); ok {
			x.Checkpoints()
		}
	}
}

// pairs are the rows of the table in docs/performance.md: which of our decoders
// against which peer. The peer should need at least want times our CPU time,
// wantPoor times where the input hardly compresses; 0 is no wish. libdeflate
// keeps its whole output in memory, and the kernel spends as much as half of its
// time on making that memory: the time in user mode is a harder mark.
var pairs = []struct {
	name           string
	ours, peer     peers.Decoder
	want, wantPoor float64
}{
	{"klauspost", ours, peers.Klauspost, 2.2, 1.6},
	{"libdeflate", ours, peers.Libdeflate, 0.7, 0.7},
	{"zlib-ng", ours, peers.ZlibNG, 1, 1},
	{"igzip", ours, peers.Isal, 0, 0},
	{"std", ours, peers.Standard, 0, 0},
	{"gnu", ours, peers.GNU, 0, 0},
	{"klauspost-checkpoints", indexer, peers.Klauspost, 0, 0},
}

// used is CPU time, and the part of it in user mode.
type used struct{ cpu, user time.Duration }

func (u used) minus(v used) used { return used{u.cpu - v.cpu, u.user - v.user} }

// cpuTime returns the CPU time that a decoder has used so far.
func cpuTime(b *testing.B, d *peers.Decoder) used {
	var r syscall.Rusage
	if err := syscall.Getrusage(d.Who(), &r); err != nil {
		b.Fatal(err)
	}
	user := time.Duration(r.Utime.Nano())
	return used{user + time.Duration(r.Stime.Nano()), user}
}

// measure returns the CPU time of decoding the file at path, less that of
// decoding the empty one: of starting.
func measure(b *testing.B, d *peers.Decoder, path, empty string) used {
	begin := cpuTime(b, d)
	if err := d.Decode(b.Context(), path, io.Discard); err != nil {
		b.Fatalf("%s: %v", d.Name, err)
	}
	middle := cpuTime(b, d)
	if err := d.Decode(b.Context(), empty, io.Discard); err != nil {
		b.Fatalf("%s: %v", d.Name, err)
	}
	return middle.minus(begin).minus(cpuTime(b, d).minus(middle))
}

// check compares what a decoder makes of an input with its diff ID.
func check(ctx context.Context, d *peers.Decoder, in *labimage.Input) error {
	h := sha256.New()
	if err := d.Decode(ctx, in.Path, h); err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	if got := digest.NewDigest(digest.SHA256, h); got != in.DiffID {
		return fmt.Errorf("%s decodes to %s, not %s", d.Name, got, in.DiffID)
	}
	return nil
}

func inputs(b *testing.B) []labimage.Input {
	b.Helper()
	all, err := labimage.Inputs(b.TempDir(), os.Getenv("CORPORA"), "")
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// BenchmarkInflate decodes whole layers from the page cache. Each line is a row:
// our decoder and a peer in turns, so that what else the machine does hits both
// alike. It reports the CPU time of each in milliseconds, how many times ours
// the peer needs, and the same of the time in user mode.
func BenchmarkInflate(b *testing.B) {
	empty := filepath.Join(b.TempDir(), "empty.gz")
	if err := os.WriteFile(empty, zip(b, nil), 0o666); err != nil {
		b.Fatal(err)
	}
	for _, in := range inputs(b) {
		for _, p := range pairs {
			b.Run("input="+in.Name+"/peer="+p.name, func(b *testing.B) {
				if why := p.peer.Missing(); why != "" {
					b.Skip(why)
				}
				for _, d := range []*peers.Decoder{&p.ours, &p.peer} {
					if err := check(b.Context(), d, &in); err != nil {
						b.Fatal(err)
					}
				}
				var mine, theirs used
				n := 0
				for b.Loop() {
					n++
					m, t := measure(b, &p.ours, in.Path, empty), measure(b, &p.peer, in.Path, empty)
					mine, theirs = used{mine.cpu + m.cpu, mine.user + m.user}, used{theirs.cpu + t.cpu, theirs.user + t.user}
				}
				b.ReportMetric(0, "ns/op") // of both
				b.ReportMetric(mine.cpu.Seconds()*1e3/float64(n), "ours-ms")
				b.ReportMetric(theirs.cpu.Seconds()*1e3/float64(n), "peer-ms")
				b.ReportMetric(theirs.cpu.Seconds()/mine.cpu.Seconds(), "ratio")
				b.ReportMetric(theirs.user.Seconds()/mine.user.Seconds(), "user-ratio")
				if want := map[bool]float64{false: p.want, true: p.wantPoor}[in.Poor]; want > 0 {
					b.ReportMetric(want, "wanted-ratio")
				}
			})
		}
	}
}

// TestDecoders: all decoders that are here agree, and are seen to disagree.
func TestDecoders(t *testing.T) {
	img, err := labimage.WriteAs(t.TempDir(), labimage.FastGzip, labimage.Many(1, 3000))
	if err != nil {
		t.Fatal(err)
	}
	in := labimage.Input{Path: img.Blob(img.Manifest.Layers[0].Digest), DiffID: img.DiffIDs[0]}
	for _, p := range pairs {
		for _, d := range []*peers.Decoder{&p.ours, &p.peer} {
			if why := d.Missing(); why != "" {
				t.Logf("%s: %s", d.Name, why)
			} else if err := check(t.Context(), d, &in); err != nil {
				t.Error(err)
			}
		}
	}
	in.DiffID = digest.FromString("another")
	if err := check(t.Context(), &ours, &in); err == nil {
		t.Error("output with another digest was not noticed")
	}
}

const (
	coldReads    = 100
	coldReadSize = 4 << 10
)

// BenchmarkColdRead decodes 4 KiB at each of 100 random places of a layer, from
// the last checkpoint before it, and reports how much comes out of the decoder
// for one of them: 1024 KiB at most are wanted.
func BenchmarkColdRead(b *testing.B) {
	for _, in := range inputs(b) {
		b.Run("input="+in.Name, func(b *testing.B) {
			f, err := os.Open(in.Path)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			points, size := checkpoints(b, f)
			offsets := randomOffsets(size)
			var inflated int64
			n := 0
			for b.Loop() {
				for _, off := range offsets {
					after := sort.Search(len(points), func(i int) bool { return points[i].Out > off }) - 1
					inflated += inflatedUntil(b, f, points[after], min(off+coldReadSize, size))
					n++
				}
			}
			b.ReportMetric(float64(inflated)/float64(n)/1024, "inflated-KiB")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/read")
		})
	}
}

// randomOffsets returns where the cold reads begin, in order.
func randomOffsets(size int64) []int64 {
	rng := rand.New(rand.NewPCG(4, 4))
	offsets := make([]int64, coldReads)
	for i := range offsets {
		offsets[i] = rng.Int64N(max(1, size-coldReadSize))
	}
	slices.Sort(offsets)
	return offsets
}

// checkpoints returns those of a gzip file, and how much it decodes to.
func checkpoints(b *testing.B, f io.Reader) (points []codec.Checkpoint, size int64) {
	x := NewIndexer(f, nil)
	for {
		p, err := x.Next()
		size += int64(len(p))
		points = append(points, x.Checkpoints()...)
		if err == io.EOF {
			return points, size
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// inflatedUntil returns how many bytes come out of a decoder from a checkpoint
// on until it has passed the byte at out.
func inflatedUntil(b *testing.B, f io.ReadSeeker, from codec.Checkpoint, out int64) int64 {
	if _, err := f.Seek(from.In, io.SeekStart); err != nil {
		b.Fatal(err)
	}
	d, err := Resume(f, from)
	if err != nil {
		b.Fatal(err)
	}
	var n int64
	for from.Out+n < out {
		p, err := d.Next()
		if err != nil {
			b.Fatal(err)
		}
		n += int64(len(p))
	}
	return n
}

// BenchmarkResume is what a cold read costs: a new decoder and its first piece.
func BenchmarkResume(b *testing.B) {
	file := zip(b, text(8<<20, 1))
	x := NewIndexer(bytes.NewReader(file), nil)
	_, cps, err := decodeAll(x)
	if err != nil || len(cps) < 3 {
		b.Fatalf("%d checkpoints, %v", len(cps), err)
	}
	for b.Loop() {
		d, err := Resume(bytes.NewReader(file[cps[2].In:]), cps[2])
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
