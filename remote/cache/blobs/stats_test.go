package blobs

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// The counters agree with a model of what was read and prefetched.
func TestBlobStats(t *testing.T) {
	const c = cachetest.TestChunk
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(240, 0))
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100*c+9, 240)}
		dir := t.TempDir()
		b := cached(t, openCache(t, dir, nil), src)
		fetched, read := map[int64]bool{}, map[int64]bool{}
		var want Stats
		for range 200 {
			off := r.Int64N(src.Size())
			n := min(1+r.Int64N(6*c), src.Size()-off)
			ahead := r.IntN(3) == 0
			if ahead {
				b.Prefetch(off, n)
				synctest.Wait()
			} else {
				checkRead(t, b, src, off, n)
				want.Asked += n
			}
			for k := off / c; k*c < off+n; k++ {
				at, stop := b.s.Bounds(k)
				if !fetched[k] {
					fetched[k] = true
					want.Fetched += stop - at
				} else if !ahead {
					want.Hits += min(stop, off+n) - max(at, off)
				}
				read[k] = read[k] || !ahead
			}
			want.Wasted, want.Present = 0, want.Fetched
			for k := range fetched {
				if at, stop := b.s.Bounds(k); !read[k] {
					want.Wasted += stop - at
				}
			}
			want.Requests = int64(len(src.Asked()))
			if got := b.Stats(); got != want {
				t.Fatalf("after %d bytes at %d, ahead %v: Stats() = %+v, want %+v", n, off, ahead, got, want)
			}
		}

		// What another process finds on disk it has not fetched.
		other := cached(t, openCache(t, dir, nil), src)
		if got := other.Stats(); got != (Stats{Present: want.Present}) {
			t.Errorf("another process's Stats() = %+v", got)
		}
	})
}

func TestBlobStatsErrors(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 241)}
	src.Answer = func(_ context.Context, _ int, p []byte) (int, error) {
		return cachetest.TestChunk, remote.ErrUnavailable
	}
	b := cached(t, openCache(t, t.TempDir(), nil), src)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.ReadAt(ctx, make([]byte, 10), 0)
	b.ReadAt(t.Context(), make([]byte, 10), src.Size()) // io.EOF
	b.ReadAt(t.Context(), make([]byte, 2*cachetest.TestChunk), 0)
	// One chunk came, for a reader who got nothing.
	want := Stats{Requests: 1, Fetched: cachetest.TestChunk, Asked: 2*cachetest.TestChunk + 10, Errors: 1, Present: cachetest.TestChunk}
	got := b.Stats()
	want.Wasted = got.Wasted
	if got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
}

// A chunk belongs to the first read that had something of it.
func TestMeter(t *testing.T) {
	const c = cachetest.TestChunk
	synctest.Test(t, func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20*c, 242), Answer: lab().carry}
		b := cached(t, openCache(t, t.TempDir(), nil), src)
		var first, second atomic.Int64
		var wg sync.WaitGroup
		read := func(n *atomic.Int64, off, length int64) {
			wg.Go(func() {
				ctx := withMeter(t.Context(), func(fetched int64) { n.Add(fetched) })
				if _, err := b.ReadAt(ctx, make([]byte, length), off); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		read(&first, 0, 3*c)
		read(&second, 2*c, 3*c)
		wg.Wait()
		read(&second, 0, 2*c) // from disk
		b.Prefetch(10*c, c)
		read(&second, 10*c, c)
		wg.Wait()
		if got := [2]int64{first.Load(), second.Load()}; got[0]+got[1] != 6*c || got[0] < 2*c || got[1] < 3*c {
			t.Errorf("metered %d and %d bytes, want 2 and 3 chunks of %d, and one more by whoever was first", got[0], got[1], c)
		}
		before := second.Load()
		// What comes for a reader that leaves is that of who takes it.
		ctx, cancel := context.WithCancel(withMeter(t.Context(), func(n int64) { first.Add(n) }))
		go b.ReadAt(ctx, make([]byte, c), 15*c)
		synctest.Wait()
		read(&second, 15*c, c)
		cancel()
		wg.Wait()
		if got := second.Load() - before; got != c {
			t.Errorf("metered %d bytes of a chunk that another reader asked for, want %d", got, c)
		}
	})
}

// A meterFunc is a Meter.
type meterFunc func(fetched int64)

func (f meterFunc) Fetched(n int64) { f(n) }

// withMeter returns a context for ReadAt, with a Meter that calls add.
func withMeter(ctx context.Context, add func(fetched int64)) context.Context {
	return context.WithValue(ctx, MeterKey{}, meterFunc(add))
}
