package reader

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestReaderGiantBlock reads a layer that is a single DEFLATE block, many times
// longer than the distance of checkpoints: it is entered in its middle, and
// what is between its header and there is not read.
func TestReaderGiantBlock(t *testing.T) {
	unit := inflatetest.Scale(1 << 20)
	tarBytes := samples.Tar(t, 6*unit)
	var w inflatetest.Writer
	w.Fixed(true)
	rng := rand.New(rand.NewPCG(8, 9))
	for at := 0; at < len(tarBytes); {
		// A match where the bytes of some earlier place go on here too.
		n, dist := 0, 0
		if at > 0 {
			dist = 1 + rng.IntN(min(at, 32<<10))
			for n < 258 && at+n < len(tarBytes) && tarBytes[at+n] == tarBytes[at+n-dist] {
				n++
			}
		}
		if n < 3 {
			w.Literals(tarBytes[at])
			at++
			continue
		}
		w.Match(n, dist)
		at += n
	}
	w.End()
	blob := gzipMember(w.Bytes(), tarBytes)
	x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: int64(unit / 16)})
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	inside := 0
	for _, p := range pointsOf(t, spans) {
		if p.Symbol > 0 && p.In == 10 {
			inside++
		}
	}
	if inside < 5 {
		t.Fatalf("%d of %d checkpoints are inside the block", inside, spans.Len())
	}
	checkPoisoned(t, x, blob, tarBytes)
	// A small read late in the block.
	counted := &countingBlob{Blob: blob}
	r := New(x, counted, nil)
	checkRead(t, r, tarBytes, int64(len(tarBytes)-1000), 500)
	if got := counted.bytes.Load(); got > int64(len(blob)/2) {
		t.Errorf("%d bytes read of a blob of %d for 500 at its end", got, len(blob))
	}
}

// TestReaderBitOffsets has stored, fixed and dynamic blocks begin at every
// offset in a byte, and enters each.
func TestReaderBitOffsets(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	content := make([]byte, 24*36_000)
	for i := range content {
		content[i] = byte(rng.Uint32())
	}
	tarBytes := samples.TarOf(t, "noise", content)
	lit := make([]uint8, 257) // a complete code with all bytes and the end
	for i := range lit {
		if lit[i] = 8; i >= 255 {
			lit[i] = 9
		}
	}
	type place struct {
		kind int
		bit  uint8
	}
	want := map[int64]place{} // by output
	var w inflatetest.Writer
	at := 0
	// fill writes a block of some 4,000 literals that ends at a bit offset. It
	// takes the output since the block before it to over 32 KiB: only then
	// is there a checkpoint at the next block.
	fill := func(bit uint8) {
		w.Fixed(false)
		for n := 0; n < 4000 || uint8(w.BitOffset()+7)&7 != bit; n++ {
			w.Literals(tarBytes[at])
			at++
		}
		w.End()
	}
	for kind := range 3 {
		for bit := range uint8(8) {
			fill(bit)
			want[int64(at)] = place{kind, bit}
			p := tarBytes[at : at+30_000]
			at += len(p)
			switch kind {
			case 0:
				w.Stored(false, p)
				continue
			case 1:
				w.Fixed(false)
			default:
				w.Dynamic(false, lit, []uint8{1})
			}
			w.Literals(p...)
			w.End()
		}
	}
	w.Fixed(true)
	w.Literals(tarBytes[at:]...)
	w.End()
	blob := gzipMember(w.Bytes(), tarBytes)
	x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 8})
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pointsOf(t, spans) {
		if k, ok := want[p.Out]; ok && k.bit == p.Bit && p.Symbol == 0 {
			delete(want, p.Out)
		}
	}
	if len(want) != 0 {
		t.Errorf("not entered: %v", want)
	}
	checkPoisoned(t, x, blob, tarBytes)
}

// TestReaderDecodesOnce: readers that wait for the same span share one
// decoding of it.
func TestReaderDecodesOnce(t *testing.T) {
	tarBytes := samples.Tar(t, 400_000)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, nil)
	gated := &gatedBlob{Blob: blob, gate: make(chan struct{}), begun: make(chan struct{}, 1)}
	counted := &countedBlob{Blob: gated}
	r := New(x, counted, nil)
	var readers sync.WaitGroup
	for i := range 32 {
		readers.Go(func() {
			off := int64(i * len(tarBytes) / 33)
			p := make([]byte, 1000)
			if _, err := r.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, tarBytes[off:off+1000]) {
				t.Errorf("ReadAt(%d): %v", off, err)
			}
		})
	}
	<-gated.begun
	close(gated.gate)
	readers.Wait()
	if got := counted.bytes.Load(); got > int64(len(blob)) {
		t.Errorf("32 readers had %d bytes read of a blob of %d", got, len(blob))
	}
}

// countedBlob counts the bytes that come from a blob.
type countedBlob struct {
	Blob
	bytes atomic.Int64
}

func (b *countedBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.Blob.ReadAt(ctx, p, off)
	b.bytes.Add(int64(n))
	return n, err
}

// TestReaderSequential: who reads on and on, also beside others who do, has
// every byte of the blob read once, with a cache for next to nothing.
func TestReaderSequential(t *testing.T) {
	tarBytes := samples.Tar(t, inflatetest.Scale(8<<20))
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: int64(inflatetest.Scale(512 << 10))})
	const readers = 4
	counted := &countingBlob{Blob: blob}
	r := New(x, counted, &Options{Cache: NewSpanCache(int64(inflatetest.Scale(6 << 20)))})
	defer r.Close()
	part := int64(len(tarBytes)) / readers
	for off := int64(0); off < part; off += 4096 {
		for i := range int64(readers) { // in turn, each in its part
			checkRead(t, r, tarBytes, i*part+off, min(4096, part-off))
		}
	}
	// Each part begins and ends in a span that its neighbour reads too.
	limit := int64(len(blob)) + readers*2*int64(len(blob)/x.NumSpans()) + readers*2*streamPiece
	if got := counted.bytes.Load(); got > limit {
		t.Errorf("%d bytes read of a blob of %d in %d spans, want at most %d", got, len(blob), x.NumSpans(), limit)
	}
}

// TestSpanCacheBound: decoded spans take no more than the limit, whatever is
// read, and their buffers no more than they are counted for.
func TestSpanCacheBound(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, inflatetest.Scale(8<<20))
	blob := samples.Gzip(t, tarBytes)
	length := int64(inflatetest.Scale(256 << 10))
	cache := NewSpanCache(4 * length)
	var all []*Reader
	for _, size := range []int64{length, length / 3} {
		x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: size})
		r := New(x, samples.Blob(blob), &Options{Cache: cache})
		defer r.Close()
		all = append(all, r)
	}
	rng := rand.New(rand.NewPCG(3, 1))
	for range 60 {
		checkRead(t, all[rng.IntN(2)], tarBytes, rng.Int64N(int64(len(tarBytes))), rng.Int64N(length))
		// Who decodes has the span's lock and then wants the cache's.
		var counted, held int64
		var spans []*span
		cache.mu.Lock()
		for e := cache.lru.Front(); e != nil; e = e.Next() {
			s := e.Value.(*spanItem).span
			counted += s.size
			spans = append(spans, s)
		}
		if counted != cache.used || len(spans) != len(cache.spans) || counted > cache.limit && len(spans) > 1 {
			t.Errorf("%d spans count for %d bytes, together %d, and %d are known; the limit is %d", len(spans), counted, cache.used, len(cache.spans), cache.limit)
		}
		cache.mu.Unlock()
		for _, s := range spans {
			s.mu.Lock()
			held += int64(len(s.buf))
			s.mu.Unlock()
		}
		if held > counted {
			t.Errorf("spans that count for %d bytes hold %d", counted, held)
		}
	}
}

// A shortBlob gives less than is asked for, and then errors while it is told to.
type shortBlob struct {
	samples.Blob
	first  int
	err    atomic.Pointer[error]
	served atomic.Int32
}

func (b *shortBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := b.err.Load(); err != nil {
		if b.served.Add(1) > 1 {
			return 0, *err
		}
		n, _ := b.Blob.ReadAt(ctx, p[:b.first], off)
		return n, *err
	}
	return b.Blob.ReadAt(ctx, p, off)
}

// TestReaderErrorIsNotKept: a decoder that has met an error behind what its
// reader wanted does not bring it up later, when the blob can be read again.
func TestReaderErrorIsNotKept(t *testing.T) {
	tarBytes := samples.Tar(t, 300_000)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, nil)
	broken := errors.New("line cut")
	short := &shortBlob{Blob: blob, first: 8000}
	short.err.Store(&broken)
	r := New(x, short, nil)
	defer r.Close()
	checkRead(t, r, tarBytes, 0, 1000)
	if short.served.Load() < 2 {
		t.Skip("the decoder did not read ahead of what was wanted")
	}
	short.err.Store(nil)
	checkRead(t, r, tarBytes, 100_000, 1000)
}

// TestReaderManyShortReads: readers that come and go all the time never see
// that another one's wish was called off.
func TestReaderManyShortReads(t *testing.T) {
	tarBytes := samples.Tar(t, inflatetest.Scale(1<<20))
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 40 << 10})
	for i := range 30 {
		r := New(x, samples.Blob(blob), &Options{Cache: NewSpanCache(200 << 10)})
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		for range 40 {
			checkRead(t, r, tarBytes, rng.Int64N(int64(len(tarBytes))), rng.Int64N(100_000))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
