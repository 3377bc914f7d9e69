package reader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestReader(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 1<<20)
	for _, c := range samples.Codecs {
		t.Run(c.Name, func(t *testing.T) {
			blob := c.Wrap(t, tarBytes)
			x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 64 << 10})
			// A cache for few spans, so that they are decoded again.
			r := New(x, samples.Blob(blob), &Options{Cache: NewSpanCache(300 << 10)})
			size := int64(len(tarBytes))
			for _, at := range []struct{ off, n int64 }{{0, 1}, {0, size}, {size - 1, 1}, {size - 1, 10}, {size, 1}, {size + 5, 1}, {1, 0}} {
				checkRead(t, r, tarBytes, at.off, at.n)
			}
			rng := rand.New(rand.NewPCG(3, 4))
			for range 40 {
				checkRead(t, r, tarBytes, rng.Int64N(size), rng.Int64N(150_000))
			}
			if _, err := r.ReadAt(context.Background(), make([]byte, 1), -1); err == nil {
				t.Error("a negative offset was read")
			}
		})
	}
}

// checkRead compares one ReadAt with bytes.Reader's.
func checkRead(t *testing.T, r *Reader, want []byte, off, n int64) {
	t.Helper()
	p, q := make([]byte, n), make([]byte, n)
	wn, werr := bytes.NewReader(want).ReadAt(q, off)
	gn, gerr := r.ReadAt(context.Background(), p, off)
	if gn != wn || gerr != werr || !bytes.Equal(p, q) {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v, equal %v; want %d, %v", n, off, gn, gerr, bytes.Equal(p, q), wn, werr)
	}
}

// TestReaderSpools reads a zstd frame that is too long for memory.
func TestReaderSpools(t *testing.T) {
	tarBytes := samples.Tar(t, maxSpanMemory+1<<20)
	blob := samples.ZstdFrames(t, tarBytes, len(tarBytes))
	x := mustBuild(t, blob, tarBytes, nil)
	dir := t.TempDir()
	r := New(x, samples.Blob(blob), &Options{NewTemp: inDir(dir)})
	for _, off := range []int64{0, 5 << 20, int64(len(tarBytes)) - 100} {
		checkRead(t, r, tarBytes, off, 4096)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the spool has a name: %v, %v", left, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestReaderWithoutSpool reads such a frame where no file can be made, from
// all sides at once.
func TestReaderWithoutSpool(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 2*maxSpanMemory+1<<20)
	blob := samples.ZstdFrames(t, tarBytes, len(tarBytes))
	x := mustBuild(t, blob, tarBytes, nil)
	var failed atomic.Int64
	r := New(x, samples.Blob(blob), &Options{NewTemp: inDir(filepath.Join(t.TempDir(), "absent")), SpoolFailed: func(err error) {
		if failed.Add(1); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("told of %v", err)
		}
	}})
	size := int64(len(tarBytes))
	checkRead(t, r, tarBytes, maxSpanMemory-5, 10)
	checkRead(t, r, tarBytes, 0, size)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for range 5 {
				p, off := make([]byte, 1+rng.Int64N(100_000)), rng.Int64N(size-100_000)
				if n, err := r.ReadAt(t.Context(), p, off); n != len(p) || err != nil || !bytes.Equal(p, tarBytes[off:][:n]) {
					t.Errorf("ReadAt(%d bytes at %d) = %d, %v", len(p), off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n != 1 {
		t.Errorf("the disk was tried %d times, want once in a while", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.ReadAt(ctx, make([]byte, 1), size/2); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestReaderParallel(t *testing.T) {
	tarBytes := samples.Tar(t, 2<<20)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 512 << 10})
	counted := &countingBlob{Blob: blob}
	r := New(x, counted, nil)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			for range 20 {
				off := rng.Int64N(int64(len(tarBytes)))
				p := make([]byte, 50_000)
				n, err := r.ReadAt(context.Background(), p, off)
				if err != nil && err != io.EOF || !bytes.Equal(p[:n], tarBytes[off:off+int64(n)]) {
					t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
				}
			}
		})
	}
	wg.Wait()
	// Every span once, with what its last block reaches into the next.
	if got, limit := counted.bytes.Load(), int64(len(blob))*2; got > limit {
		t.Errorf("%d bytes read of a blob of %d", got, len(blob))
	}
}

type countingBlob struct {
	samples.Blob
	bytes atomic.Int64
}

func (b *countingBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.Blob.ReadAt(ctx, p, off)
	b.bytes.Add(int64(n))
	return n, err
}

// TestReaderReadsLittle: a small read in the middle decodes a part of a span
// only.
func TestReaderReadsLittle(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 6<<20)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, nil)
	rng := rand.New(rand.NewPCG(5, 6))
	const reads = 20
	var total int64
	for range reads {
		counted := &countingBlob{Blob: blob}
		r := New(x, counted, nil)
		checkRead(t, r, tarBytes, rng.Int64N(int64(len(tarBytes))), 4096)
		total += counted.bytes.Load()
	}
	perSpan := int64(len(blob) / x.NumSpans())
	if mean := total / reads; mean > perSpan*8/10+100_000 {
		t.Errorf("%d bytes of the blob for a small read on average; a span has %d", mean, perSpan)
	}
}

// A gatedBlob holds reads back until it is opened, and fails while it is told to.
type gatedBlob struct {
	samples.Blob
	gate  chan struct{}
	fail  atomic.Pointer[error]
	begun chan struct{}
}

func (b *gatedBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	select {
	case b.begun <- struct{}{}:
	default:
	}
	select {
	case <-b.gate:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := b.fail.Load(); err != nil {
		return 0, *err
	}
	return b.Blob.ReadAt(ctx, p, off)
}

func TestReaderCancel(t *testing.T) {
	tarBytes := samples.Tar(t, 100_000)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, nil)
	gated := &gatedBlob{Blob: blob, gate: make(chan struct{}), begun: make(chan struct{}, 1)}
	r := New(x, gated, nil)
	ctx, cancel := context.WithCancel(context.Background())
	type result struct {
		p   []byte
		err error
	}
	read := func(ctx context.Context) chan result {
		c := make(chan result, 1)
		go func() {
			p := make([]byte, 1000)
			_, err := r.ReadAt(ctx, p, 500)
			c <- result{p, err}
		}()
		return c
	}
	first := read(ctx)
	<-gated.begun
	second := read(context.Background())
	cancel()
	if got := <-first; !errors.Is(got.err, context.Canceled) {
		t.Errorf("cancelled reader: %v", got.err)
	}
	close(gated.gate)
	if got := <-second; got.err != nil || !bytes.Equal(got.p, tarBytes[500:1500]) {
		t.Errorf("the other reader: %v", got.err)
	}
}

// TestReaderAbandoned: work that all readers have left is stopped, and a later
// reader begins anew.
func TestReaderAbandoned(t *testing.T) {
	tarBytes := samples.Tar(t, 100_000)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, nil)
	gated := &gatedBlob{Blob: blob, gate: make(chan struct{}), begun: make(chan struct{}, 1)}
	r := New(x, gated, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("ReadAt = %v", err)
	}
	close(gated.gate)
	checkRead(t, r, tarBytes, 0, 5000)
}

// TestReaderErrorPasses: an error is for those who wait, not for ever.
func TestReaderErrorPasses(t *testing.T) {
	tarBytes := samples.Tar(t, 300_000)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, nil)
	gated := &gatedBlob{Blob: blob, gate: make(chan struct{})}
	close(gated.gate)
	broken := errors.New("line cut")
	gated.fail.Store(&broken)
	r := New(x, gated, nil)
	for range 2 {
		if _, err := r.ReadAt(context.Background(), make([]byte, 10), 100); !errors.Is(err, broken) {
			t.Errorf("ReadAt = %v, want %v", err, broken)
		}
	}
	gated.fail.Store(nil)
	checkRead(t, r, tarBytes, 100, 10)
	gated.fail.Store(&broken)
	checkRead(t, r, tarBytes, 100, 10) // decoded already
}
