package reader

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// setProcs makes it look as if there were n processors.
func setProcs(t *testing.T, n int) {
	old := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

func TestReaderPrefetches(t *testing.T) {
	testenv.Slow(t)
	for _, procs := range []int{1, 2} {
		setProcs(t, procs)
		for _, c := range []string{"plain", "gzip", "zstd", "zstd of several frames"} {
			a := newAheadTest(t, c)
			const begin, end = 500_000, 2_200_000
			if _, err := a.readFile(t, begin, end, end); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
			a.r.Close()
			first := a.m.in(begin)
			if a.m.l != nil {
				first = startIn(a.m.l, a.m.l.Find(begin))
			}
			from, to, asked := a.blob.touched()
			// The end is an estimate, and a decoder reads whole pieces.
			if most := a.m.in(end) + 4*streamPiece; from < first || to > most {
				t.Errorf("%s: bytes %d to %d of the blob were touched for what is from %d to %d", c, from, to, first, most)
			}
			whole := a.m.in(end) - a.m.in(begin)
			if asked < whole*2/3 || asked > whole {
				t.Errorf("%s: %d bytes were asked for ahead of a file of %d", c, asked, whole)
			}
		}
	}
}

// TestReaderSpoolPrefetches: a span that is decoded into a file is read to its
// end.
func TestReaderSpoolPrefetches(t *testing.T) {
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	noise := make([]byte, maxWindow+2*maxAsk)
	rand.NewChaCha8([32]byte{}).Read(noise)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "noise", Mode: 0o644, Size: int64(len(noise))})
	if err == nil {
		_, err = w.Write(noise)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	tarBytes := file.Bytes()
	blob := &aheadBlob{Blob: samples.ZstdFrames(t, tarBytes, len(tarBytes))}
	r := New(mustBuild(t, blob.Blob, tarBytes, nil), blob, &Options{NewTemp: inDir(t.TempDir())})
	checkRead(t, r, tarBytes, int64(len(tarBytes))-100, 100)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, to, asked := blob.touched(); asked != blob.Size() || to != blob.Size() {
		t.Errorf("%d bytes asked for, up to byte %d of a blob of %d", asked, to, blob.Size())
	}
}

func TestReaderSmallReads(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		off := rng.Int64N(a.x.Size() - 1000)
		r := New(a.x, a.blob, nil)
		a.blob.read = nil
		if _, err := r.ReadFileAt(context.Background(), make([]byte, 1000), off, off+1000); err != nil {
			t.Fatal(err)
		}
		i := a.m.l.Find(off)
		need, reads := a.m.in(off+1000)-startIn(a.m.l, i)+streamPiece, 1
		if end, _ := a.m.l.End(i); end-off < 100_000 {
			// A decoder hands on nothing before it has a fair amount, and
			// some of that is in the next span.
			need, reads = need+streamPiece, 2
		}
		if from, to, _ := a.blob.touched(); len(a.blob.read) > reads || to-from > need {
			t.Errorf("%d reads of %d bytes for %d", len(a.blob.read), to-from, need)
		}
		r.Close()
	}
	if len(a.blob.asked) > 0 {
		t.Errorf("%d calls of Prefetch", len(a.blob.asked))
	}
}

func TestDecodeAhead(t *testing.T) {
	setProcs(t, 2)
	for _, c := range []string{"gzip", "zstd", "zstd of several frames"} {
		a := newAheadTest(t, c)
		const end = 2_000_000
		at, err := a.readFile(t, 0, 1_000_000, end)
		if err != nil {
			t.Fatal(err)
		}
		a.r.ahead.jobs.Wait()
		// The rest of the span, and the next one; but not of one that would
		// fill most of the cache.
		stop, _ := a.m.l.End(min(a.m.l.Find(at)+1, a.m.l.Len()-1))
		if got := a.decoded(at, stop-at); got != (a.m.l.Len() > 4) {
			t.Errorf("%s: bytes %d to %d are decoded: %v", c, at, stop, got)
		}
		if i := a.m.l.Find(end) + 1; i < a.m.l.Len() && a.decoded(startOut(a.m.l, i), 1) {
			t.Errorf("%s: a span behind the end of the file was decoded", c)
		}
	}
}

func TestDecodeAheadOneProcessor(t *testing.T) {
	setProcs(t, 1)
	a := newAheadTest(t, "gzip")
	at, err := a.readFile(t, 0, 1_000_000, a.x.Size())
	if err != nil {
		t.Fatal(err)
	}
	a.r.ahead.jobs.Wait()
	if i := a.m.l.Find(at) + 1; a.decoded(startOut(a.m.l, i), 1) {
		t.Error("the next span is decoded")
	}
}

// TestDecodeAheadFails: what is wrong further on is no error for who is not
// there yet, and passes.
func TestDecodeAheadFails(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	a.blob.edge, a.blob.broken = a.x.BlobSize()/2, errors.New("line cut")
	at, err := a.readFile(t, 0, a.x.Size(), a.x.Size())
	if !errors.Is(err, a.blob.broken) {
		t.Fatalf("read up to %d: %v", at, err)
	}
	if in := a.m.in(at); in < a.blob.edge-3*streamPiece {
		t.Errorf("the read at %d failed, which needs byte %d; the error begins at %d", at, in, a.blob.edge)
	}
	a.blob.mu.Lock()
	a.blob.edge = 0
	a.blob.mu.Unlock()
	if _, err := a.readFile(t, at, a.x.Size(), a.x.Size()); err != nil {
		t.Errorf("later: %v", err)
	}
}

// TestDecodeAheadStops: Close ends what waits for the blob.
func TestDecodeAheadStops(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	a.blob.edge, a.blob.release = a.m.in(1_300_000), make(chan struct{})
	at, err := a.readFile(t, 0, 1_000_000, a.x.Size())
	if err != nil {
		t.Fatalf("read up to %d: %v", at, err)
	}
	<-a.blob.held
	a.r.Close()
	a.blob.mu.Lock()
	if a.blob.active != 0 {
		t.Errorf("%d reads go on", a.blob.active)
	}
	a.blob.mu.Unlock()
	if c := a.r.opts.Cache; c.jobs != 0 || len(c.ahead) != 0 {
		t.Errorf("%d jobs, %d streams are left", c.jobs, len(c.ahead))
	}
	a.blob.edge = 0
	if _, err := a.readFile(t, 0, 500_000, a.x.Size()); err != nil {
		t.Errorf("read after Close: %v", err)
	}
}

// waitFor waits until n readers and jobs wait for span i.
func (a *aheadTest) waitFor(i, n int) {
	s := a.r.opts.Cache.get(spanKey{a.r, i}, func() *span { return a.r.newSpan(a.m.l, i) })
	for waiting := 0; waiting < n; runtime.Gosched() {
		s.mu.Lock()
		waiting = s.waiting
		s.mu.Unlock()
	}
}

// TestDecodeAheadFailsAlone: a reader that has come while something was read
// ahead of it, in vain, reads what it needs itself.
func TestDecodeAheadFailsAlone(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	i := a.m.l.Find(1_000_000)
	end, _ := a.m.l.End(i)
	a.blob.edge, a.blob.release, a.blob.broken = a.m.in(startOut(a.m.l, i)), make(chan struct{}), errors.New("line cut")
	// The span before is read as far as that does not take this one.
	if at, err := a.readFile(t, 0, startOut(a.m.l, i)-200_000, end); err != nil {
		t.Fatalf("read up to %d: %v", at, err)
	}
	<-a.blob.held
	a.waitFor(i, 1)
	done := make(chan error)
	go func() {
		p := make([]byte, 1000)
		n, err := a.r.ReadFileAt(context.Background(), p, end-1000, end)
		if err == nil && !bytes.Equal(p[:n], a.tar[end-1000:end]) {
			err = errors.New("wrong bytes")
		}
		done <- err
	}()
	a.waitFor(i, 2)
	a.blob.mu.Lock()
	a.blob.edge = 0
	a.blob.mu.Unlock()
	close(a.blob.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSpanLeavesWhileRead has a span leave the cache while it is decoded.
func TestSpanLeavesWhileRead(t *testing.T) {
	setProcs(t, 1)
	a := newAheadTest(t, "gzip")
	a.r.opts.Cache = NewSpanCache(1)
	end, in := a.m.l.End(0)
	checkRead(t, a.r, a.tar, 0, 1000)
	a.blob.edge, a.blob.release = in*3/4, make(chan struct{})
	done := make(chan []byte)
	go func() {
		p := make([]byte, end)
		if _, err := a.r.ReadAt(context.Background(), p, 0); err != nil {
			t.Error(err)
		}
		done <- p
	}()
	<-a.blob.held
	a.waitFor(0, 1)
	a.blob.mu.Lock()
	a.blob.edge = 0
	a.blob.mu.Unlock()
	checkRead(t, a.r, a.tar, end+1000, 1000)
	checkRead(t, a.r, a.tar, 2*end, end)
	close(a.blob.release)
	if p := <-done; !bytes.Equal(p, a.tar[:end]) {
		t.Error("wrong bytes")
	}
}

// TestDecodeAheadSlots has one stream more than slots.
func TestDecodeAheadSlots(t *testing.T) {
	c := NewSpanCache(1 << 20)
	var streams [maxAhead + 1]stream
	var first *aheadSlot
	for i := range maxAhead {
		slot := c.admit(&streams[i])
		if slot == nil {
			t.Fatalf("stream %d has no slot", i)
		}
		if i == 0 {
			first = slot
		}
	}
	tries := 0
	for c.admit(&streams[maxAhead]) == nil {
		if tries++; tries > 2*aheadPatience {
			t.Fatal("an idle stream keeps its slot")
		}
		for i := 1; i < maxAhead; i++ {
			c.admit(&streams[i])
		}
	}
	if tries == 0 {
		t.Error("a stream lost its slot at once")
	}
	if first.ctx.Err() == nil {
		t.Error("what is decoded ahead of a stream without a slot goes on")
	}
	for i := range streams {
		c.forget(&streams[i])
	}
	if len(c.ahead) != 0 {
		t.Errorf("%d slots are left", len(c.ahead))
	}
}

// TestReaderMixed has readers of all kinds at once, in a cache that is too
// small for them, and compares all that they get.
func TestReaderMixed(t *testing.T) {
	testenv.Slow(t)
	setProcs(t, 4)
	tarBytes := samples.Tar(t, 2<<20)
	cache := NewSpanCache(2 << 20)
	var wg sync.WaitGroup
	for k, c := range samples.Codecs {
		blob := c.Wrap(t, tarBytes)
		r := New(mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 128 << 10}), &aheadBlob{Blob: blob},
			&Options{Cache: cache, NewTemp: inDir(t.TempDir())})
		defer r.Close()
		for i := range 3 {
			wg.Go(func() { readMixed(t, r, tarBytes, rand.New(rand.NewPCG(uint64(k), uint64(i)))) })
		}
	}
	wg.Wait()
}

// readMixed reads runs of various lengths, in order or nearly so, some of them
// with a context that ends.
func readMixed(t *testing.T, r *Reader, want []byte, rng *rand.Rand) {
	size := int64(len(want))
	p := make([]byte, 256<<10)
	for range 6 {
		at := rng.Int64N(size)
		end := min(size, at+rng.Int64N(size))
		n := int64(1000) << rng.IntN(9)
		for range 1 + rng.IntN(40) {
			ctx, cancel := context.WithCancel(context.Background())
			if rng.IntN(20) == 0 {
				go cancel()
			}
			off := max(0, at+int64(rng.IntN(5)/4)*(rng.Int64N(200_000)-100_000))
			got, err := r.ReadFileAt(ctx, p[:n], off, end)
			left := ctx.Err() != nil && errors.Is(err, context.Canceled)
			cancel()
			if whole := min(n, size-off); !left && int64(got) != max(0, whole) || !bytes.Equal(p[:got], want[min(off, size):min(off+int64(got), size)]) {
				t.Errorf("ReadFileAt(%d bytes, %d) = %d, %v", n, off, got, err)
				return
			}
			at += n
		}
	}
}
