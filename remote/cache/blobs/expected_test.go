package blobs

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// TestExpect: what is expected comes in its order, at the speed of the line, and what is
// there or under way is not fetched again. What of it was read is counted.
func TestExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(160*bigChunk, 401), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, progressBlob{src}, src.Data)
		checkRead(t, b, src, 50*bigChunk, 10*bigChunk) // so that something is there, and the line is known
		took := timed(func() {
			for _, x := range []struct{ off, n int64 }{{100 * bigChunk, 60 * bigChunk}, {40 * bigChunk, 30 * bigChunk}, {0, 1}, {-1, 5}, {1 << 40, 5}} {
				if _, err := b.Expect(t.Context(), x.off, x.n); err != nil {
					t.Error(err)
				}
			}
			settleExpected(c)
		})
		if least := l.rtt + l.transfer(81*bigChunk); took > least+2*l.rtt {
			t.Errorf("81 chunks took %v, and the line alone %v", took, least)
		}
		asked := src.Asked()[1:]
		if asked[0].Off < 100*bigChunk || len(asked) > 14 {
			t.Errorf("asked for %v", asked)
		}
		if fetched, met := c.Expected(); fetched != 81*bigChunk || met != 0 {
			t.Errorf("%d bytes were fetched and %d read", fetched, met)
		}
		checkRead(t, b, src, 39*bigChunk, 12*bigChunk)
		checkRead(t, b, src, 41*bigChunk, 5)
		if fetched, met := c.Expected(); fetched != 81*bigChunk || met != 10*bigChunk {
			t.Errorf("after 12 chunks were read %d bytes were fetched and %d read", fetched, met)
		}
		b.s.metExpectation(41) // it came again
		if _, met := c.Expected(); met != 10*bigChunk {
			t.Errorf("after a chunk came again %d bytes were read", met)
		}
	})
}

// settleExpected waits until nothing that is expected is under way.
func settleExpected(c *testCache) {
	for {
		synctest.Wait()
		e := &c.sched.expected
		e.mu.Lock()
		n := e.flying
		e.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestExpectReaders: a reader who wants something else waits for little of what is
// expected, and one who wants that for nothing else.
func TestExpectReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(400*bigChunk, 402), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, progressBlob{src}, src.Data)
		checkRead(t, b, src, 0, 10*bigChunk)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.Expect(t.Context(), 10*bigChunk, 300*bigChunk); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(50 * time.Millisecond)
		took := timed(func() { checkReadNoFatal(t, b, src, 399*bigChunk, 10) })
		if alone := l.rtt + l.transfer(bigChunk); took > alone+expectTime+expectTrips*l.rtt {
			t.Errorf("a reader waited for %v, and would for %v alone", took, alone)
		}
		took = timed(func() { checkReadNoFatal(t, b, src, 20*bigChunk, 10) })
		if took > expectTime+expectTrips*l.rtt {
			t.Errorf("a reader of what is coming waited for %v", took)
		}
		wg.Wait()
		settle()
		if e := &c.sched.expected; e.flying != 0 || c.sched.busy != 0 {
			t.Errorf("when all is over %d bytes and %d others are under way", e.flying, c.sched.busy)
		}
	})
}

// TestExpectFails: who expects something hears that it could not be fetched, readers do not,
// and an end is not waited out.
func TestExpectFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(400*bigChunk, 403)}
		dead := true
		src.Answer = func(ctx context.Context, _ int, p []byte) (int, error) {
			time.Sleep(time.Second)
			if dead {
				return 0, remote.ErrUnavailable
			}
			return len(p), nil
		}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, src, src.Data)
		if _, err := b.Expect(t.Context(), 0, src.Size()); !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("got error %v", err)
		}
		settle()
		dead = false
		checkRead(t, b, src, 0, 10)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if took := timed(func() {
			if _, err := b.Expect(ctx, bigChunk, src.Size()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v", err)
			}
		}); took != 500*time.Millisecond {
			t.Errorf("it ended after %v", took)
		}
		settle()
		c.NoRoom.Refuse()
		if _, err := b.Expect(t.Context(), 300*bigChunk, bigChunk); !errors.Is(err, directory.ErrFull) {
			t.Errorf("got error %v", err)
		}
	})
}
