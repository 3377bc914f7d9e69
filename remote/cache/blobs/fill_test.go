package blobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

func fetchedBytes(src *cachetest.FakeBlob) int64 {
	n := int64(0)
	for _, r := range src.Asked() {
		n += r.End - r.Off
	}
	return n
}

// Fill brings what is missing, once, in order, at the speed of the line.
func TestFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		one := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100*bigChunk+1, 220), Answer: l.carry}
		two := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(30*bigChunk, 221), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b1, b2 := cachedBig(t, c, one, one.Data), cachedBig(t, c, two, two.Data)
		for _, k := range []int64{0, 1, 50, 99} {
			checkRead(t, b1, one, k*bigChunk, 1)
		}
		time.Sleep(grace)
		before := len(one.Asked())
		var seen []int64
		all := one.Size() + two.Size()
		took := timed(func() {
			err := c.Fill(t.Context(), []*Blob{b1, b2, b1}, func(have, of int64) {
				if seen = append(seen, have); of != all {
					t.Errorf("progress of %d bytes, want %d", of, all)
				}
			})
			if err != nil {
				t.Errorf("Fill() = %v", err)
			}
		})
		left := all - 4*bigChunk
		if want := l.transfer(left) + l.rtt; took > want*23/20 {
			t.Errorf("took %v, and the line needs %v", took, want)
		}
		for _, r := range one.Asked()[before:] {
			if r.End-r.Off > fillRequest {
				t.Errorf("asked for %v at once", r)
			}
		}
		if got := fetchedBytes(one) + fetchedBytes(two); got != all {
			t.Errorf("fetched %d bytes of %d", got, all)
		}
		if !slices.IsSorted(seen) || seen[0] != 4*bigChunk || seen[len(seen)-1] != all {
			t.Errorf("progress %v, want from %d to %d", seen, 4*bigChunk, all)
		}
		done := len(one.Asked()) + len(two.Asked())
		checkRead(t, b1, one, 0, one.Size())
		if err := c.Fill(t.Context(), []*Blob{b1, b2}, nil); err != nil {
			t.Errorf("second Fill() = %v", err)
		}
		if got := len(one.Asked()) + len(two.Asked()); got != done {
			t.Errorf("%d more requests when all is there", got-done)
		}
		synctest.Wait()
		for _, b := range []*Blob{b1, b2} {
			if got := c.Verification(b.Digest()); got != meta.VerifiedWhole {
				t.Errorf("Verification() = %v after a Fill", got)
			}
		}
	})
}

// Readers first: with a Fill under way a reader waits for what Fill has asked
// for already, and then has the line.
func TestFillReadersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{rtt: 20 * time.Millisecond, rate: 25e6 / 8}
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(500*bigChunk, 222), Answer: l.carry}
		other := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(400*bigChunk, 223), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b, b2 := cachedBig(t, c, src, src.Data), cachedBig(t, c, other, other.Data)
		ctx, cancel := context.WithCancel(t.Context())
		filled := make(chan error)
		go func() { filled <- c.Fill(ctx, []*Blob{b}, nil) }()

		r := rand.New(rand.NewPCG(224, 0))
		alone := l.rtt + l.transfer(bigChunk)
		bound := alone + l.transfer(minFills*fillRequest)
		worst := time.Duration(0)
		for i := range int64(30) {
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
			worst = max(worst, timed(func() { checkRead(t, b2, other, i*4*bigChunk, 100) }))
		}
		t.Logf("a read of one chunk takes %v, with a Fill up to %v", alone, worst)
		if worst > bound+5*time.Millisecond {
			t.Errorf("a read with a Fill under way took %v, want at most %v", worst, bound)
		}

		// Of many reads in a row only the first meets Fill.
		time.Sleep(time.Second)
		before := len(src.Asked())
		const pause = 20 * time.Millisecond
		took := timed(func() {
			for i := range int64(30) {
				checkRead(t, b2, other, (i*4+2)*bigChunk, 100)
				time.Sleep(pause)
			}
		})
		if want := 30*(alone+pause) + bound; took > want {
			t.Errorf("30 reads took %v, want at most %v", took, want)
		}
		if got := len(src.Asked()) - before; got > 0 {
			t.Errorf("Fill has begun %d requests among reads", got)
		}
		cancel()
		if took := timed(func() {
			if err := <-filled; err != context.Canceled {
				t.Errorf("Fill() = %v", err)
			}
		}); took != 0 {
			t.Errorf("Fill ended %v after its context", took)
		}
	})
}

// Readers share what Fill brings, and its end does not harm them.
func TestFillJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*bigChunk, 225), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, src, src.Data)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.Fill(ctx, []*Blob{b}, nil) })
		time.Sleep(l.rtt / 2)
		wg.Go(func() { checkReadNoFatal(t, b, src, 3*bigChunk, bigChunk) })
		synctest.Wait()
		cancel()
		wg.Wait()
		if got := len(src.Asked()); got != 1 {
			t.Errorf("asked for %v, want one request", src.Asked())
		}
	})
}

// What a killed process has brought is not asked for again.
func TestFillResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		dir := t.TempDir()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(130*bigChunk, 226), Answer: l.carry}
		for i := range 4 {
			c := openCache(t, dir, nil)
			b := cachedBig(t, c, src, src.Data)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if i == 3 {
				ctx = t.Context()
			}
			if err := c.Fill(ctx, []*Blob{b}, nil); err != nil != (i < 3) {
				t.Errorf("Fill() = %v", err)
			}
			cancel()
			c.Close()
		}
		// Each of the three lost what was under way.
		if got, most := fetchedBytes(src), src.Size()+3*minFills*fillRequest; got > most {
			t.Errorf("asked for %d bytes of %d, want at most %d", got, src.Size(), most)
		}
	})
}

func TestFillErrors(t *testing.T) {
	const c = cachetest.TestChunk
	down := func(until time.Duration) func(context.Context, int, []byte) (int, error) {
		began := time.Now()
		return func(_ context.Context, _ int, p []byte) (int, error) {
			if time.Since(began) < until {
				return 0, fmt.Errorf("no route: %w", remote.ErrUnavailable)
			}
			return len(p), nil
		}
	}
	always := func(err error) func(context.Context, int, []byte) (int, error) {
		return func(context.Context, int, []byte) (int, error) { return 0, err }
	}
	tests := []struct {
		name    string
		answer  func() func(context.Context, int, []byte) (int, error)
		timeout time.Duration
		want    []error
		min     time.Duration // that it takes
		max     time.Duration
		have    int64 // chunks in the end, of 300
		most    int   // requests
	}{
		{"down for a while", func() func(context.Context, int, []byte) (int, error) { return down(10 * time.Minute) },
			time.Hour, nil, 10 * time.Minute, 11*time.Minute + time.Second, 300, 100},
		{"down", func() func(context.Context, int, []byte) (int, error) { return down(1000 * time.Hour) },
			time.Hour, []error{context.DeadlineExceeded, remote.ErrUnavailable}, time.Hour, time.Hour, 0, 500},
		{"not found", func() func(context.Context, int, []byte) (int, error) { return always(remote.ErrNotFound) },
			time.Hour, []error{remote.ErrNotFound}, time.Second, time.Minute, 0, 20},
		{"one wrong chunk", func() func(context.Context, int, []byte) (int, error) {
			return func(_ context.Context, i int, p []byte) (int, error) {
				if i == 0 || len(p) == c {
					p[0] ^= 1 // chunk 0, whenever it is asked for
				}
				return len(p), nil
			}
		}, time.Hour, []error{remote.ErrDigest}, time.Second, time.Minute, 299, 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(300*c, 227), Answer: tt.answer()}
				cache := openCache(t, t.TempDir(), nil)
				b := cached(t, cache, src)
				ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
				defer cancel()
				var err error
				took := timed(func() { err = cache.Fill(ctx, []*Blob{b}, nil) })
				if tt.want == nil && err != nil {
					t.Errorf("Fill() = %v", err)
				}
				for _, want := range tt.want {
					if !errors.Is(err, want) {
						t.Errorf("Fill() = %v, want %v", err, want)
					}
				}
				if took < tt.min || took > tt.max {
					t.Errorf("took %v, want %v to %v", took, tt.min, tt.max)
				}
				if got := b.Stats().Present; got != tt.have*c {
					t.Errorf("%d chunks there, want %d", got/c, tt.have)
				}
				if got := len(src.Asked()); got > tt.most {
					t.Errorf("%d requests, want at most %d", got, tt.most)
				}
			})
		})
	}
}

// A blob that cannot be had does not keep others from coming.
func TestFillOneBlobFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(50*bigChunk, 228)}
		bad.Answer = func(context.Context, int, []byte) (int, error) { return 0, remote.ErrUnavailable }
		good := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(50*bigChunk, 229)}
		c := openCache(t, t.TempDir(), nil)
		b1, b2 := cachedBig(t, c, bad, bad.Data), cachedBig(t, c, good, good.Data)
		ctx, cancel := context.WithTimeout(t.Context(), minPause/2)
		defer cancel()
		err := c.Fill(ctx, []*Blob{b1, b2}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("Fill() = %v", err)
		}
		if got := b2.Stats().Present; got != good.Size() {
			t.Errorf("%d bytes of the good blob, want %d", got, good.Size())
		}
	})
}

func TestFillNoRoom(t *testing.T) {
	t.Run("full disk", func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(12<<20, 230)}
		var w cachetest.Warnings
		dir := cachetest.SmallDisk(t, 2<<20)
		c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
		b := cached(t, c, src)
		if err := c.Fill(t.Context(), []*Blob{b}, nil); !errors.Is(err, directory.ErrFull) {
			t.Errorf("Fill() = %v, want ErrFull", err)
		}
		if got := fetchedBytes(src); got > 2<<20+maxFills*fillRequest {
			t.Errorf("fetched %d bytes for a disk of 2 MiB", got)
		}
		w.Check(t, dir)
		checkRead(t, b, src, 0, src.Size())
	})
	t.Run("disk refuses", func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4<<20, 231)}
		c := openCache(t, t.TempDir(), nil)
		c.RetryWrites = time.Hour
		c.Disk.Refuse()
		if err := c.Fill(t.Context(), []*Blob{cached(t, c, src)}, nil); !errors.Is(err, directory.ErrFull) {
			t.Errorf("Fill() = %v, want ErrFull", err)
		}
	})
	t.Run("budget", func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4<<20, 232)}
		c := openCache(t, t.TempDir(), &testOptions{Budget: 3 << 20})
		b := cached(t, c, src)
		if err := c.Fill(t.Context(), []*Blob{b}, nil); !errors.Is(err, directory.ErrFull) {
			t.Errorf("Fill() = %v, want ErrFull", err)
		}
		if got := b.Stats().Present; got > 3<<20 || got < 2<<20 {
			t.Errorf("%d bytes there with a budget of 3 MiB", got)
		}
	})
}
