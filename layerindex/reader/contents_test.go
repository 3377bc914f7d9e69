package reader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// checkContents compares one ReadAt with the layer: what proofs cover is read, and
// nothing else.
func checkContents(t *testing.T, r *Reader, l *contentsLayer, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	got, err := r.ReadAt(context.Background(), p, off)
	size := int64(len(l.out))
	want := max(min(n, size-off), 0)
	switch {
	case off >= size:
		if got != 0 || err != io.EOF {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v; want EOF", n, off, got, err)
		}
	case !l.covered(off, off+want):
		if got != 0 || !errors.Is(err, layerindex.ErrIndex) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v; want %v", n, off, got, err, layerindex.ErrIndex)
		}
	case int64(got) != want || (err == io.EOF) != (want < n) || err != nil && err != io.EOF || !bytes.Equal(p[:got], l.out[off:off+want]):
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v, equal %v; want %d", n, off, got, err, bytes.Equal(p[:got], l.out[off:off+int64(got)]), want)
	}
}

// TestContents reads layers of every style: each file, parts of files, and ranges that
// are not all content, behind a cache that checks cuts, and with a cache of spans that
// holds few.
func TestContents(t *testing.T) {
	t.Parallel()
	files := smallFiles(300, 400_000)
	for _, style := range contentsStyles {
		t.Run(style.name, func(t *testing.T) {
			t.Parallel()
			l := makeContents(t, style, files)
			for _, memory := range []int64{1 << 20, 64 << 20} {
				r, blob := l.open(t, Options{Cache: NewSpanCache(memory)})
				rng := rand.New(rand.NewPCG(1, uint64(memory)))
				for _, i := range rng.Perm(len(l.files)) {
					f := l.files[i]
					checkContents(t, r, l, f.Off, f.Size)
					off := f.Off + rng.Int64N(f.Size+1)
					checkContents(t, r, l, off, rng.Int64N(f.Off+f.Size-off+1))
				}
				for _, f := range l.files { // and in order
					checkContents(t, r, l, f.Off, f.Size)
				}
				for range 100 {
					checkContents(t, r, l, rng.Int64N(r.Size()), rng.Int64N(20_000))
				}
				checkContents(t, r, l, r.Size(), 1)
				if n := blob.matched.Load(); n > blob.p.Len() {
					t.Errorf("%d matches of %d cuts", n, blob.p.Len())
				}
			}
		})
	}
}

// TestContentsEveryByte reads each range of a small layer.
func TestContentsEveryByte(t *testing.T) {
	t.Parallel()
	files := [][]byte{nil, []byte("a"), []byte("bcdefgh"), nil, nil, bytes.Repeat([]byte("0123456789"), 60), nil, []byte("z")}
	for _, style := range contentsStyles {
		style.chunk = 100 // odd, as 512 is no multiple
		if style.least > 0 {
			style.least = 1500
		}
		t.Run(style.name, func(t *testing.T) {
			t.Parallel()
			l := makeContents(t, style, files)
			r, _ := l.open(t, Options{})
			for off := range r.Size() + 2 {
				for _, n := range []int64{0, 1, 2, 7, 99, 100, 101, 511, 600, 601, 5000} {
					checkContents(t, r, l, off, n)
				}
			}
		})
	}
}

// TestContentsDecodesOnce: what a cut is checked by decoding is not decoded again to be
// read.
func TestContentsDecodesOnce(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	l := makeContents(t, contentsStyles[0], smallFiles(500, 100_000))
	r, blob := l.open(t, Options{Cache: NewSpanCache(64 << 20)})
	counted := &countingBlob{Blob: l.blob}
	for i := range l.files {
		checkContents(t, r, l, l.files[i].Off, l.files[i].Size)
	}
	if n, want := blob.matched.Load(), int64(r.table.Load().Len()); n != want {
		t.Errorf("%d cuts were matched for %d runs", n, want)
	}
	// All of it is held now.
	for _, f := range l.files {
		if p := make([]byte, f.Size); f.Size > 0 && (!r.ReadHeld(p, f.Off, f.Off+f.Size, context.Background) || !bytes.Equal(p, l.out[f.Off:][:f.Size])) {
			t.Fatalf("file of %d bytes at %d is not held", f.Size, f.Off)
		}
		if off := f.Off + f.Size; !l.covered(off, off+1) && r.ReadHeld(make([]byte, 1), off, off+1, context.Background) {
			t.Errorf("byte %d is in no proof, and was read", off)
		}
	}
	// A Match without a reader, and one for a reader that is closed, keep nothing.
	other := mustProver(t, l.x)
	for _, close := range []bool{false, true} {
		cache := NewSpanCache(64 << 20)
		r := New(l.x, counted, &Options{Cache: cache, Prover: other})
		if close {
			r.Close()
		}
		off, end := other.Bounds(1)
		if !other.Match(1, l.blob[off:end]) {
			t.Fatal("cut 1 does not match")
		}
		if got := len(cache.spans); got != map[bool]int{false: 1, true: 0}[close] {
			t.Errorf("closed %v: %d spans in memory", close, got)
		}
		r.Close()
	}
}

// TestContentsAllocations: a read of what is held allocates nothing.
func TestContentsAllocations(t *testing.T) {
	l := makeContents(t, contentsStyles[0], smallFiles(200, 100_000))
	r, _ := l.open(t, Options{})
	f := l.files[len(l.files)-1]
	for i := len(l.files) - 1; f.Size == 0; i-- {
		f = l.files[i]
	}
	checkContents(t, r, l, f.Off, f.Size)
	p := make([]byte, f.Size)
	n := testing.AllocsPerRun(100, func() {
		if !r.ReadHeld(p, f.Off, f.Off+f.Size, context.Background) {
			t.Fatal("it is not held")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestContentsAgain: another reader does not make the tables again, and leaves what cuts
// are decoded to with the first.
func TestContentsAgain(t *testing.T) {
	t.Parallel()
	l := makeContents(t, contentsStyles[1], smallFiles(100, 10_000))
	r, blob := l.open(t, Options{})
	other := r.Again(blob, nil)
	if other.table.Load() != r.table.Load() || r.table.Load() == nil || blob.p.reader.Load() != r {
		t.Error("the other reader has tables of its own, or what is for the first")
	}
	for _, f := range l.files {
		checkContents(t, other, l, f.Off, f.Size)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	for _, f := range l.files {
		checkContents(t, r, l, f.Off, f.Size)
	}
}

// TestContentsAhead: runs are fetched and decoded ahead of a reader that goes from file
// to file, and end with the layer.
func TestContentsAhead(t *testing.T) {
	testenv.Slow(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))))
	l := makeContents(t, contentsStyles[0], smallFiles(1500, 20_000))
	r, blob := l.open(t, Options{Cache: NewSpanCache(64 << 20)})
	half := len(l.files) / 2
	for _, f := range l.files[:half] {
		checkContents(t, r, l, f.Off, f.Size)
		p := make([]byte, f.Size)
		if n, err := r.ReadFileAt(t.Context(), p, f.Off, f.Off+f.Size); n != len(p) || err != nil {
			t.Fatalf("ReadFileAt = %d, %v", n, err)
		}
	}
	// Jobs go on by themselves.
	layout := r.table.Load()
	need := layout.Find(l.files[half].Off) + 2
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		blob.mu.Lock()
		have := len(blob.sound)
		blob.mu.Unlock()
		if have >= min(need, layout.Len()) {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%d runs of %d are there", have, need)
		}
	}
}

// A prefetchingBlob brings cuts ahead at once.
type prefetchingBlob struct {
	*cutBlob
	brought int64 // the most cuts of one call
	again   int64 // reads of what was there already
}

func (b *prefetchingBlob) Prefetch(off, n int64) {
	brought := b.matched.Load()
	b.cutBlob.ReadAt(context.Background(), make([]byte, n), off)
	b.brought = max(b.brought, b.matched.Load()-brought)
}

func (b *prefetchingBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	before := b.matched.Load()
	n, err := b.cutBlob.ReadAt(ctx, p, off)
	if b.matched.Load() == before {
		b.again++
	}
	return n, err
}

// TestContentsPrefetch: no more is fetched ahead than has room in memory once it is
// decoded, so it is still there when a reader comes to it.
func TestContentsPrefetch(t *testing.T) {
	testenv.Slow(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // nothing else is decoded ahead
	l := makeContents(t, contentsStyles[0], smallFiles(6000, 20_000))
	p := mustProver(t, l.x)
	blob := &prefetchingBlob{cutBlob: &cutBlob{Blob: l.blob, p: p}}
	r := New(l.x, blob, &Options{Cache: NewSpanCache(4 << 20), Prover: p})
	defer r.Close()
	for _, f := range l.files {
		b := make([]byte, f.Size)
		if n, err := r.ReadFileAt(t.Context(), b, f.Off, f.Off+f.Size); n != len(b) || err != nil && f.Off < r.Size() {
			t.Fatalf("ReadFileAt = %d, %v", n, err)
		}
	}
	if blob.brought < 2 || blob.again > 0 {
		t.Errorf("%d cuts were brought at a time, and %d of %d runs decoded again", blob.brought, blob.again, p.Len())
	}
}

// TestContentsFill: a cache that checks the whole blob leaves the spans in use alone.
func TestContentsFill(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	l := makeContents(t, contentsStyles[0], smallFiles(2000, 100_000))
	cache := NewSpanCache(2 << 20)
	r, blob := l.open(t, Options{Cache: cache})
	used := l.files[len(l.files)/2]
	for ; used.Size == 0; used = l.files[len(l.files)/2+1] {
	}
	checkContents(t, r, l, used.Off, used.Size)
	for k := range blob.p.Len() {
		if off, end := blob.p.Bounds(k); blob.p.Match(k, l.blob[off:end]) {
			if cache.used > cache.limit || cache.offerUsed > cache.limit/offerShare {
				t.Fatalf("%d bytes in the cache, %d offered, limit %d", cache.used, cache.offerUsed, cache.limit)
			}
		}
	}
	if !r.ReadHeld(make([]byte, used.Size), used.Off, used.Off+used.Size, context.Background) {
		t.Error("a span in use was evicted")
	}
	var sum int64
	for _, e := range cache.spans {
		sum += e.Value.(*spanItem).span.size
	}
	if sum != cache.used {
		t.Errorf("%d bytes counted of %d", cache.used, sum)
	}
}

// TestContentsParallel: readers that read, leave and close while cuts are matched.
func TestContentsParallel(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	l := makeContents(t, contentsStyles[6], smallFiles(500, 1<<20))
	p := mustProver(t, l.x)
	cache := NewSpanCache(3 << 20)
	var all sync.WaitGroup
	for round := range 3 {
		blob := &cutBlob{Blob: l.blob, p: p}
		r := New(l.x, blob, &Options{Cache: cache, Prover: p})
		for i := range 6 {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(i)))
				for range 100 {
					ctx, cancel := context.WithCancel(t.Context())
					if rng.IntN(3) == 0 {
						go cancel()
					}
					f := l.files[rng.IntN(len(l.files))]
					b := make([]byte, f.Size)
					n, err := r.ReadFileAt(ctx, b, f.Off, f.Off+f.Size)
					if !bytes.Equal(b[:n], l.out[f.Off:f.Off+int64(n)]) {
						t.Errorf("wrong bytes at %d", f.Off)
					}
					if err != nil && ctx.Err() == nil && f.Off < r.Size() {
						t.Errorf("ReadFileAt: %v", err)
					}
					cancel()
				}
			})
		}
		all.Go(func() {
			for k := range p.Len() {
				off, end := p.Bounds(k)
				p.Match(k, l.blob[off:end])
			}
			r.Close()
		})
	}
	all.Wait()
}

// TestContentsLong reads runs that are too long for memory, with and without a
// temporary file, and next to short ones.
func TestContentsLong(t *testing.T) {
	t.Parallel()
	files := smallFiles(40, 30_000)
	long := bytes.Repeat(bytes.Join(files, nil), 300)[:maxSpanMemory+3<<20+77]
	files[20] = long
	for i := 0; i < len(contentsStyles); i += testenv.Every(3) {
		style := contentsStyles[i]
		if style.chunk = 0; style.whole {
			style.chunk = 1 << 20 // several members under one proof
		}
		t.Run(style.name, func(t *testing.T) {
			t.Parallel()
			l := makeContents(t, style, files)
			for _, temp := range []bool{false, true} {
				opts := Options{}
				if temp {
					opts.NewTemp = inDir(t.TempDir())
				}
				r, _ := l.open(t, opts)
				for i, f := range l.files {
					if i != 20 {
						checkContents(t, r, l, f.Off, f.Size)
						continue
					}
					for _, off := range []int64{0, 5 << 20, maxSpanMemory - 100, f.Size - 1000} {
						checkContents(t, r, l, f.Off+off, 1000)
					}
				}
			}
		})
	}
}

// TestContentsEmpty reads layers that have no content.
func TestContentsEmpty(t *testing.T) {
	t.Parallel()
	for _, style := range contentsStyles {
		style.mark = false
		l := makeContents(t, style, [][]byte{nil, nil})
		r, blob := l.open(t, Options{})
		checkContents(t, r, l, 0, 1)
		for k := range blob.p.Len() {
			if off, end := blob.p.Bounds(k); blob.p.Match(k, l.blob[off:end]) {
				t.Errorf("%s: cut %d matches, and has no proof", style.name, k)
			}
		}
	}
}

// TestContentsUnproven: what is in no proof is not read, and a run without any is no
// good.
func TestContentsUnproven(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	files := smallFiles(30, 1000)
	big := bytes.Repeat(bytes.Join(files, nil), 1+(1<<20)/len(bytes.Join(files, nil)))
	files[10], files[20] = big, big
	l := makeContents(t, contentsStyles[0], files)
	l.proofs = append(l.proofs[:5:5], l.proofs[6:]...)
	for i, p := range l.proofs {
		if p.Off == l.files[20].Off {
			l.proofs = append(l.proofs[:i:i], l.proofs[i+1:]...)
			break
		}
	}
	l.index(t, layerindex.Gzip)
	r, blob := l.open(t, Options{})
	for _, f := range l.files {
		checkContents(t, r, l, f.Off, f.Size)
	}
	layout := r.table.Load()
	if i := layout.Find(l.files[20].Off); layout.runs[i].proof != layout.runs[i+1].proof {
		t.Fatal("the big file is in no run of its own")
	} else if off, in := layout.Start(i); off != l.files[20].Off {
		t.Fatalf("run at %d", off)
	} else if k := blob.p.Find(in); k < 0 {
		t.Fatal(k)
	} else if off, end := blob.p.Bounds(k); blob.p.Match(k, l.blob[off:end]) {
		t.Error("a cut without a proof matches")
	}
}

// TestContentsReadsWithoutProver reads as a believer would.
func TestContentsReadsWithoutProver(t *testing.T) {
	t.Parallel()
	l := makeContents(t, contentsStyles[4], smallFiles(100, 100_000))
	r := New(l.x, samples.Blob(l.blob), nil)
	defer r.Close()
	for _, f := range l.files {
		checkContents(t, r, l, f.Off, f.Size)
		if f.Size == 0 {
			continue
		}
		out, in, inEnd, err := r.Source(f.Off, f.Off+f.Size)
		if err != nil || out > f.Off || in < 0 || inEnd <= in || inEnd > int64(len(l.blob)) {
			t.Errorf("Source(%d) = %d, %d, %d, %v", f.Off, out, in, inEnd, err)
		}
	}
}
