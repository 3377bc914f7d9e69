package blobs

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// far is a line on which much is under way at a time, slow one where little
// takes long.
func far() *line { return &line{rtt: 150 * time.Millisecond, rate: 1e9 / 8} }

func slow() *line { return &line{rtt: 60 * time.Millisecond, rate: 1e6 / 8} }

// TestGauge measures lines while they are used.
func TestGauge(t *testing.T) {
	for name, l := range map[string]*line{"lab": lab(), "far": far(), "slow": slow()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(64*bigChunk, 230), Answer: l.carry}
				c := openCache(t, t.TempDir(), nil)
				b := cachedBig(t, c, progressBlob{src}, src.Data)
				if got := c.Line(); got != (LineStats{}) {
					t.Errorf("before anything was read: %+v", got)
				}
				for k := int64(0); k < 64; k += 16 { // by two and two
					var wg sync.WaitGroup
					wg.Go(func() { checkReadNoFatal(t, b, src, k*bigChunk, 8*bigChunk) })
					wg.Go(func() { checkReadNoFatal(t, b, src, (k+8)*bigChunk, 8*bigChunk) })
					wg.Wait()
				}
				synctest.Wait() // for requests to end behind their readers
				got := c.Line()
				// The first piece of two answers comes with the head.
				if most := l.rtt + l.transfer(64<<10); got.Trip < l.rtt || got.Trip > most {
					t.Errorf("a round trip takes %v, want %v to %v", got.Trip, l.rtt, most)
				}
				if want := float64(l.rate); got.Rate < want*8/10 || got.Rate > want*12/10 {
					t.Errorf("%.0f bytes a second, want about %.0f", got.Rate, want)
				}
				if g := &c.sched.line; g.coming != 0 {
					t.Errorf("%d answers are coming when all is over", g.coming)
				}
			})
		})
	}
}

// TestGaugeFailures: requests that break off, or bring nothing, leave nothing
// behind.
func TestGaugeFailures(t *testing.T) {
	var g lineSpeed
	m := measure{line: &g, began: time.Now()}
	m.arrived(0)
	m.end()
	if got := g.stats(); got != (LineStats{}) || g.coming != 0 {
		t.Errorf("after an answer without content: %+v, %d coming", got, g.coming)
	}
	m = measure{line: &g, began: time.Now()}
	m.arrived(1)
	m.arrived(100)
	m.end()
	if got := g.stats(); got.Trip == 0 || got.Rate != 0 || g.coming != 0 {
		t.Errorf("after 100 bytes: %+v, %d coming; want no rate", got, g.coming)
	}
}

// TestRequestsFitTheLine: on a slow line nobody asks for what takes it minutes.
func TestRequestsFitTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := slow()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(400*bigChunk, 231), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, progressBlob{src}, src.Data)
		checkRead(t, b, src, 0, 16*bigChunk) // 1 MiB

		before := len(src.Asked())
		checkRead(t, b, src, 20*bigChunk, 16*bigChunk)
		for _, r := range src.Asked()[before:] {
			if r.End-r.Off > leastRequest {
				t.Errorf("a reader asks for %v at once", r)
			}
		}

		before = len(src.Asked())
		b.Prefetch(40*bigChunk, 100*bigChunk)
		synctest.Wait()
		under := int64(0)
		for _, r := range src.Asked()[before:] {
			under += r.End - r.Off
		}
		if under > leastAhead {
			t.Errorf("Prefetch has %d bytes under way, want at most %d", under, leastAhead)
		}
		took := timed(func() { checkRead(t, b, src, 300*bigChunk, 10) })
		if most := l.rtt + l.transfer(leastAhead+bigChunk); took > most {
			t.Errorf("a reader beside Prefetch waits for %v, want at most %v", took, most)
		}
		settle()

		before = len(src.Asked())
		go c.Fill(t.Context(), []*Blob{b}, nil)
		time.Sleep(time.Second)
		took = timed(func() { checkRead(t, b, src, 399*bigChunk, 10) })
		for _, r := range src.Asked()[before:] {
			if r.End-r.Off > bigChunk {
				t.Errorf("Fill asks for %v at once", r)
			}
		}
		if most := l.rtt + l.transfer((minFills+1)*bigChunk); took > most {
			t.Errorf("a reader beside Fill waits for %v, want at most %v", took, most)
		}
	})
}

// TestFillFarLine: a line on which much is under way at a time is kept busy.
func TestFillFarLine(t *testing.T) {
	testenv.Slow(t)
	synctest.Test(t, func(t *testing.T) {
		l := far()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(128<<20, 232), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, progressBlob{src}, src.Data)
		checkRead(t, b, src, 0, 4<<20)
		took := timed(func() {
			if err := c.Fill(t.Context(), []*Blob{b}, nil); err != nil {
				t.Error(err)
			}
		})
		if most := 3*l.transfer(src.Size()) + 3*l.rtt; took > most {
			t.Errorf("Fill took %v, want at most %v", took, most)
		}
		requests := c.Line().aheadRequests()
		if requests != maxAheadRequests {
			t.Errorf("Prefetch may have %d requests under way, want %d", requests, maxAheadRequests)
		}
	})
}
