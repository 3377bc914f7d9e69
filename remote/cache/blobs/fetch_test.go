package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// A long read has several requests under way, each of which is as big as it
// may be.
func TestReadInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{rtt: 20 * time.Millisecond, rate: 1e12}
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(64*bigChunk, 200), Answer: l.carry}
		c := openCache(t, t.TempDir(), &testOptions{MaxRequest: 4 * bigChunk})
		b := cachedBig(t, c, src, src.Data)
		most := 0
		src.Answer = func(ctx context.Context, i int, p []byte) (int, error) {
			src.Mu.Lock()
			most = max(most, len(src.Active))
			src.Mu.Unlock()
			return l.carry(ctx, i, p)
		}
		took := timed(func() { checkRead(t, b, src, 0, src.Size()) })
		if got := len(src.Asked()); got != 16 || most != maxParts {
			t.Errorf("%d requests, %d at a time; want 16, %d at a time", got, most, maxParts)
		}
		checkTook(t, "the read", took, 16/maxParts*l.rtt)

		// Small reads stay small.
		src = &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(64*bigChunk, 201), Answer: l.carry}
		b = cachedBig(t, c, src, src.Data)
		checkRead(t, b, src, 10*bigChunk+5, 100)
		if got := src.Asked(); len(got) != 1 || got[0] != (cachetest.Span{Off: 10 * bigChunk, End: 11 * bigChunk}) {
			t.Errorf("a small read asked for %v", got)
		}
	})
}

// Who waits for the first chunk of a long request does not wait for the last,
// if the source says how far it is.
func TestProgress(t *testing.T) {
	for _, progress := range []bool{false, true} {
		t.Run(fmt.Sprint(progress), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lab()
				src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(64*bigChunk, 202), Answer: l.carry}
				var from remote.Blob = src
				want := l.rtt + l.transfer(src.Size())
				if progress {
					from, want = progressBlob{src}, l.rtt+l.transfer(bigChunk)
				}
				b := cachedBig(t, openCache(t, t.TempDir(), nil), from, src.Data)
				var wg sync.WaitGroup
				wg.Go(func() {
					checkTook(t, "reading all", timed(func() { checkReadNoFatal(t, b, src, 0, src.Size()) }), l.rtt+l.transfer(src.Size()))
				})
				synctest.Wait()
				checkTook(t, "reading the first chunk", timed(func() { checkRead(t, b, src, 100, 100) }), want)
				wg.Wait()
				if got := len(src.Asked()); got != 1 {
					t.Errorf("%d requests, want 1", got)
				}
			})
		})
	}
}

// Sources that claim odd things while they give the right bytes, or do not.
func TestOddProgress(t *testing.T) {
	tests := []struct {
		name   string
		answer func(arrived func(int), p []byte) (int, error)
		want   error
		asked  int
	}{
		{"nothing said", func(_ func(int), p []byte) (int, error) { return len(p), nil }, nil, 1},
		{"too much said", func(a func(int), p []byte) (int, error) { a(len(p)); a(2 * len(p)); return len(p), nil }, nil, 1},
		{"backwards", func(a func(int), p []byte) (int, error) { a(len(p)); a(0); a(-1); return len(p), nil }, nil, 1},
		{"said and then denied", func(a func(int), p []byte) (int, error) {
			a(len(p))
			time.Sleep(time.Second) // of a bubble: so that it is looked at
			return 0, remote.ErrUnavailable
		}, nil, 1},
		{"half said, and denied", func(a func(int), p []byte) (int, error) {
			a(len(p) / 2)
			time.Sleep(time.Second)
			return len(p) / 2, remote.ErrUnavailable
		}, remote.ErrUnavailable, 1},
		{"cut", func(a func(int), p []byte) (int, error) {
			a(cachetest.TestChunk + 5)
			return cachetest.TestChunk + 5, io.ErrUnexpectedEOF
		}, nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 203)}
				src.Answer = func(ctx context.Context, i int, p []byte) (int, error) {
					arrived, ok := ctx.Value(arrivedKey{}).(func(int))
					if !ok {
						return len(p), nil
					}
					return tt.answer(arrived, p)
				}
				c := openCache(t, t.TempDir(), nil)
				b, err := c.Blob(progressBlob{src}, cutsOfSize(src.Data, cachetest.TestChunk))
				if err != nil {
					t.Fatal(err)
				}
				p := make([]byte, src.Size())
				_, err = b.ReadAt(t.Context(), p, 0)
				if !errors.Is(err, tt.want) || err == nil && !bytes.Equal(p, src.Data) {
					t.Errorf("ReadAt() = %v, equal %v; want %v", err, bytes.Equal(p, src.Data), tt.want)
				}
				if got := len(src.Asked()); got != tt.asked {
					t.Errorf("%d requests, want %d", got, tt.asked)
				}
			})
		})
	}
}

// An elsewhereBlob gives right bytes only from its second place.
type elsewhereBlob struct {
	*cachetest.FakeBlob
	mu    sync.Mutex
	again []cachetest.Span
}

func (b *elsewhereBlob) ReadElsewhere(_ context.Context, p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.again = append(b.again, cachetest.Span{Off: off, End: off + int64(len(p))})
	return copy(p, b.Data[off:]), nil
}

func TestElsewhere(t *testing.T) {
	const c = cachetest.TestChunk
	src := &elsewhereBlob{FakeBlob: &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(8*c, 204)}}
	src.Answer = func(_ context.Context, _ int, p []byte) (int, error) {
		for _, k := range []int{1, 2, 5} {
			p[k*c] ^= 1
		}
		return len(p), nil
	}
	cache := openCache(t, t.TempDir(), nil)
	b, err := cache.Blob(src, cutsOfSize(src.Data, c))
	if err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, src.FakeBlob, 0, src.Size())
	if got, want := fmt.Sprint(src.Asked(), src.again), "[[0,32768)] [[4096,12288) [20480,24576)]"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	if st := b.Stats(); st.Bad != 3 || st.Requests != 3 || st.Fetched != 11*c || cache.Stats().BadFetched != 3 {
		t.Errorf("Stats() = %+v", st)
	}
}

// A faultyBlob says how far it is, and has all kinds of faults.
type faultyBlob struct {
	plainBlob
	l    *line
	dice func(n int) int
}

var _ remote.ProgressBlob = faultyBlob{}

func (b faultyBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadAtProgress(ctx, p, off, func(int) {})
}

func (b faultyBlob) ReadAtProgress(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	there, wrong, end := 0, -1, len(p)
	switch b.dice(6) {
	case 0:
		wrong = b.dice(len(p))
	case 1:
		end = b.dice(len(p))
	}
	n, err := b.l.carry(context.WithValue(ctx, arrivedKey{}, func(n int) {
		n = min(n, end)
		copy(p[there:n], b.Data[off+int64(there):])
		if there <= wrong && wrong < n {
			p[wrong] ^= 4
		}
		there = n
		arrived(n)
	}), 0, p)
	if err == nil && end < len(p) {
		return end, remote.ErrUnavailable
	}
	return min(n, end), err
}

// Many readers and prefetches of a faulty source: what is read is right, and
// everything ends.
func TestFetchProperty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seed = 205
		r := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex // of r
		dice := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
		data := cachetest.RandomBytes(200*cachetest.TestChunk+77, seed)
		src := faultyBlob{plainBlob{&cachetest.FakeBlob{Data: data}}, &line{rtt: time.Millisecond, rate: 50e6}, dice}
		c := openCache(t, t.TempDir(), &testOptions{MaxRequest: 7 * cachetest.TestChunk})
		b, err := c.Blob(src, cutsOfSize(src.Data, cachetest.TestChunk))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var whole atomic.Int64
		for range 20 {
			wg.Go(func() {
				for range 20 {
					off, n := int64(dice(int(src.Size()))), int64(1+dice(30*cachetest.TestChunk))
					n = min(n, src.Size()-off)
					if dice(3) == 0 {
						b.Prefetch(off, n)
						continue
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(dice(40))*time.Millisecond)
					p := make([]byte, n)
					got, err := b.ReadAt(ctx, p, off)
					cancel()
					if !bytes.Equal(p[:got], src.Data[off:][:got]) {
						t.Errorf("ReadAt(%d bytes, %d) gave wrong bytes", n, off)
					}
					if err == nil {
						whole.Add(1)
					}
					if err == nil && int64(got) != n {
						t.Errorf("ReadAt(%d bytes, %d) = %d without an error", n, off, got)
					}
				}
			})
		}
		wg.Wait()
		settle()
		if whole.Load() < 50 {
			t.Errorf("only %d reads were right: the test shows little", whole.Load())
		}
		if len(b.s.flights) != 0 || c.sched.busy != 0 || c.sched.ahead != 0 || c.sched.runs != 0 {
			t.Errorf("when all is over: %d flights, %+v", len(b.s.flights), &c.sched)
		}
	})
}
