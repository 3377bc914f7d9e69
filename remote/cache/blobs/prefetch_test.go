package blobs

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// settle waits until nothing is under way in a bubble.
func settle() {
	time.Sleep(time.Minute)
	synctest.Wait()
}

func TestPrefetch(t *testing.T) {
	const c = cachetest.TestChunk
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20*c+7, 210), Answer: l.carry}
		cache := openCache(t, t.TempDir(), &testOptions{MaxRequest: 4 * c})
		b := cached(t, cache, src)
		checkRead(t, b, src, 2*c, 1) // so that something is there
		tests := []struct {
			name   string
			off, n int64
			want   []cachetest.Span
		}{
			{"nothing", 5 * c, 0, nil},
			{"before the beginning", -1, 5, nil},
			{"behind the end", 20*c + 7, 5, nil},
			{"around what is there", 0, 4 * c, []cachetest.Span{{Off: 0, End: 2 * c}, {Off: 3 * c, End: 4 * c}}},
			{"what is there", 0, 4 * c, nil},
			{"parts of chunks", 5*c - 1, 2, []cachetest.Span{{Off: 4 * c, End: 6 * c}}},
			{"more than one request", 6 * c, 6 * c, []cachetest.Span{{Off: 6 * c, End: 10 * c}, {Off: 10 * c, End: 12 * c}}},
			{"over the end", 19*c + 1, 1 << 62, []cachetest.Span{{Off: 19 * c, End: 20*c + 7}}},
		}
		for _, tt := range tests {
			done := len(src.Asked())
			if took := timed(func() { b.Prefetch(tt.off, tt.n) }); took != 0 {
				t.Errorf("%s: Prefetch took %v", tt.name, took)
			}
			settle()
			if got, want := asSet(src.Asked()[done:]), asSet(tt.want); !equalSets(got, want) {
				t.Errorf("%s: asked for %v, want %v", tt.name, src.Asked()[done:], tt.want)
			}
		}
		st := b.Stats()
		if want := 11*c + c + 7; st.Wasted != int64(want) || st.Present != int64(want+c) || st.Errors != 0 {
			t.Errorf("Stats() = %+v, want %d wasted", st, want)
		}
		done := len(src.Asked())
		checkRead(t, b, src, 0, 12*c)
		if got := src.Asked()[done:]; len(got) != 0 {
			t.Errorf("a reader of what was prefetched asked for %v", got)
		}
		if st := b.Stats(); st.Wasted != c+7 || st.Hits != 12*c {
			t.Errorf("after reading 12 chunks, Stats() = %+v", st)
		}
	})
}

func equalSets(a, b map[cachetest.Span]int) bool {
	if len(a) != len(b) {
		return false
	}
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return true
}

// A reader joins a prefetch, and neither harms the other.
func TestPrefetchJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(32*bigChunk, 211), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, progressBlob{src}, src.Data)
		b.Prefetch(0, src.Size())
		time.Sleep(l.rtt / 2)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := b.ReadAt(ctx, make([]byte, 1), 20*bigChunk)
			left <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-left; err != context.Canceled {
			t.Errorf("cancelled reader got %v", err)
		}
		took := timed(func() { checkRead(t, b, src, 4*bigChunk, 10) })
		checkTook(t, "reading the fifth chunk", took, l.rtt/2+l.transfer(5*bigChunk))
		settle()
		if got := len(src.Asked()); got != 1 {
			t.Errorf("%d requests, want 1: %v", got, src.Asked())
		}
		if st := b.Stats(); st.Present != src.Size() || st.Wasted != 31*bigChunk {
			t.Errorf("Stats() = %+v; want all there, and 31 chunks unread", st)
		}
	})
}

func TestPrefetchBounds(t *testing.T) {
	testenv.Slow(t)
	tests := []struct {
		name   string
		size   int64 // of each prefetch
		disk   bool
		want   int64 // bytes under way
		active int
	}{
		{"bytes", maxAhead * 2, true, maxAhead, 4},
		{"requests", bigChunk, true, minAheadRequests * bigChunk, minAheadRequests},
		{"no disk", maxAhead, false, maxAheadMemory, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lab()
				src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*maxAhead, 212), Answer: l.carry}
				c := openCache(t, t.TempDir(), nil)
				if !tt.disk {
					c.NoRoom.Refuse()
				}
				b := cachedBig(t, c, src, src.Data)
				for off := int64(0); off < src.Size(); off += tt.size {
					b.Prefetch(off, tt.size)
				}
				synctest.Wait()
				n := int64(0)
				for _, r := range src.Asked() {
					n += r.End - r.Off
				}
				if n != tt.want || len(src.Asked()) != tt.active {
					t.Errorf("%d requests for %d bytes, want %d for %d", len(src.Asked()), n, tt.active, tt.want)
				}
				// A reader is not kept out.
				at := src.Size() - bigChunk
				var wg sync.WaitGroup
				wg.Go(func() { checkReadNoFatal(t, b, src, at, 10) })
				synctest.Wait()
				if got := src.Asked(); got[len(got)-1].Off != at {
					t.Error("a reader waits for prefetches")
				}
				wg.Wait()
				settle()
				if c.sched.ahead != 0 || c.sched.runs != 0 || c.sched.busy != 0 {
					t.Errorf("when all is over: %+v", &c.sched)
				}
			})
		})
	}
}

// A disk that takes nothing: a little is kept in memory.
func TestPrefetchToMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(400*bigChunk, 213), Answer: lab().carry}
		c := openCache(t, t.TempDir(), nil)
		c.RetryWrites = time.Hour
		c.Disk.Refuse()
		b := cachedBig(t, c, src, src.Data)
		b.Prefetch(0, 10*bigChunk)
		settle()
		for off := int64(0); off < 10*bigChunk; off += 1000 {
			checkRead(t, b, src, off, min(1000, 10*bigChunk-off))
		}
		if got := len(src.Asked()); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
		if st := b.Stats(); st.Present != 0 || st.Hits != 10*bigChunk || st.Wasted != 0 {
			t.Errorf("Stats() = %+v", st)
		}
		checkRead(t, b, src, 0, src.Size())
		if got := c.sched.recent.size.Load(); got > maxRecent || got < maxRecent/2 {
			t.Errorf("%d bytes in memory, want about %d", got, maxRecent)
		}
	})
}

// A prefetch that fails is nobody's error.
func TestPrefetchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 214)}
		gate := make(chan struct{})
		src.Answer = func(_ context.Context, i int, p []byte) (int, error) {
			if i == 0 {
				<-gate
				return 0, remote.ErrUnavailable
			}
			return len(p), nil
		}
		b := cached(t, openCache(t, t.TempDir(), nil), src)
		b.Prefetch(0, src.Size())
		var wg sync.WaitGroup
		wg.Go(func() { checkReadNoFatal(t, b, src, 10, cachetest.TestChunk) })
		synctest.Wait()
		close(gate)
		wg.Wait()
		if got := src.Asked(); len(got) != 2 || got[1] != (cachetest.Span{Off: 0, End: 2 * cachetest.TestChunk}) {
			t.Errorf("asked for %v", got)
		}
		if st := b.Stats(); st.Errors != 0 {
			t.Errorf("Stats() = %+v", st)
		}
	})
}

func TestPrefetchEndsWithCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 215), Answer: (&line{rtt: time.Hour, rate: 1}).carry}
		c := openCache(t, t.TempDir(), nil)
		b := cached(t, c, src)
		b.Prefetch(0, cachetest.TestChunk)
		synctest.Wait()
		if took := timed(func() { c.Close() }); took != 0 {
			t.Errorf("Close took %v", took)
		}
		b.Prefetch(cachetest.TestChunk, cachetest.TestChunk)
		if err := c.Fill(t.Context(), []*Blob{b}, nil); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Fill after Close: %v", err)
		}
		if got := len(src.Asked()); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
	})
}
