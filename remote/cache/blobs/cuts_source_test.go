package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// However many readers want a cut, it is fetched once, and matched once; in the next
// process once more.
func TestCutsMatchedOnce(t *testing.T) {
	t.Parallel()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(500_000, 700)}
	src.Answer = func(_ context.Context, _ int, p []byte) (int, error) {
		time.Sleep(time.Millisecond)
		return len(p), nil
	}
	cuts := evenCuts(src.Data, 0, 30_000)
	dir := t.TempDir()
	for round := range 2 {
		b, err := openCache(t, dir, nil).Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				p := make([]byte, 1000)
				for off := int64(0); off < src.Size(); off += int64(len(p)) {
					if _, err := b.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, src.Data[off:off+1000]) {
						t.Errorf("ReadAt(%d) = %v, or wrong bytes", off, err)
						return
					}
				}
			})
		}
		wg.Wait()
		m := cuts.matches()
		for k := range cuts.Len() {
			if m[k] != 1 {
				t.Errorf("round %d: cut %d was matched %d times", round, k, m[k])
			}
		}
		if s := b.Stats(); s.Fetched != src.Size()*int64(1-round) || s.Wasted != 0 {
			t.Errorf("round %d: Stats() = %+v", round, s)
		}
	}
}

// A local blob is not stored, and each cut is matched once. What changes later is noticed.
func TestCutsLocal(t *testing.T) {
	t.Parallel()
	data := cachetest.RandomBytes(9<<20, 710)
	var flip atomic.Bool
	src := flippingBlob{localFake{plainBlob{&cachetest.FakeBlob{T: t, Data: data}}}, &flip}
	cuts := evenCuts(data, 0, 3<<20)
	dir := t.TempDir()
	b, err := openCache(t, dir, nil).Blob(src, cuts)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for off := int64(0); off < src.Size(); off += 128 << 10 {
			checkRead(t, b, src.FakeBlob, off, 128<<10)
		}
	}
	if m := cuts.matches(); len(m) != 3 || m[0]+m[1]+m[2] != 3 {
		t.Errorf("matched %v", m)
	}
	if s := b.Stats(); s.Fetched != src.Size() || s.Wasted != 0 || !b.Complete() {
		t.Errorf("Stats() = %+v", s)
	}
	flip.Store(true)
	if n, err := b.ReadAt(t.Context(), make([]byte, 100), 5); n != 0 || !errors.Is(err, remote.ErrDigest) {
		t.Errorf("of what has changed ReadAt() = %d, %v", n, err)
	}
	flip.Store(false)
	checkRead(t, b, src.FakeBlob, 0, src.Size())
	if _, err := os.Stat(b.s.c.dir.Path() + "/" + b.s.fileName()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was stored: %v", err)
	}
}

// Where nothing can be stored a cut that is longer than what is kept in memory is not
// fetched again for each small read of it.
func TestCutsInMemory(t *testing.T) {
	t.Parallel()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20<<20, 720)}
	cuts := evenCuts(src.Data, 0, 10<<20)
	dir := t.TempDir()
	c := openCache(t, dir, &testOptions{Budget: 1})
	b, err := c.Blob(src, cuts)
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < src.Size(); off += 128 << 10 {
		checkRead(t, b, src, off, 128<<10)
	}
	if n := len(src.Asked()); n != 2 {
		t.Errorf("the source was asked %d times", n)
	}
	if n := c.sched.recent.size.Load(); n > 10<<20 {
		t.Errorf("%d bytes are kept in memory", n)
	}
}

// Prefetch brings a cut that is longer than what the line brings in a moment, if nothing
// else is under way, and not what is in no cut.
func TestCutsPrefetch(t *testing.T) {
	t.Parallel()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(30<<20, 730)}
	cuts := cutsOf(src.Data, [2]int64{0, 15 << 20}, [2]int64{16 << 20, 29 << 20})
	c := openCache(t, t.TempDir(), nil)
	c.sched.line.trip, c.sched.line.rate = 20*time.Millisecond, 100_000
	b, err := c.Blob(src, cuts)
	if err != nil {
		t.Fatal(err)
	}
	b.Prefetch(15<<20, 10)
	b.Prefetch(29<<20, 100)
	b.Prefetch(100, 20<<20)
	c.Wait()
	if got := src.Asked(); len(got) != 1 || got[0] != (cachetest.Span{Off: 0, End: 15 << 20}) {
		t.Errorf("asked for %v", got)
	}
	checkRead(t, b, src, 0, 15<<20)
	if n := len(src.Asked()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A wrong cut is asked for once more, elsewhere, and its neighbours are not; if it is wrong
// again the read fails, and nothing of it is stored.
func TestCutsWrong(t *testing.T) {
	t.Parallel()
	data := cachetest.RandomBytes(100_000, 740)
	cuts := evenCuts(data, 0, 9_000)
	src := &cachetest.FakeBlob{T: t, Data: data}
	wrong := 2
	src.Answer = func(_ context.Context, i int, p []byte) (int, error) {
		if i < wrong {
			p[min(20_000, len(p)-1)] ^= 1 // of cut 2, and of the last byte of what is asked next
		}
		return len(p), nil
	}
	dir := t.TempDir()
	b, err := openCache(t, dir, nil).Blob(src, cuts)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := b.ReadAt(t.Context(), make([]byte, 100_000), 0); n != 0 || !errors.Is(err, remote.ErrDigest) {
		t.Errorf("ReadAt() = %d, %v", n, err)
	}
	checkRead(t, b, src, 0, 18_000)
	checkRead(t, b, src, 27_000, 73_000)
	checkRead(t, b, src, 0, 100_000)
	want := []cachetest.Span{{Off: 0, End: 100_000}, {Off: 18_000, End: 27_000}, {Off: 18_000, End: 27_000}}
	if got := src.Asked(); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("asked for %v", got)
	}
	if s := b.Stats(); s.Bad != 2 {
		t.Errorf("Stats() = %+v", s)
	}
}

// A blob that is sent whole is stored by its cuts as it comes, in pieces of any size; what
// is in no cut is passed by.
func TestCutsStream(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 15))
		src := newWholeSource(t, 750+seed)
		cuts := randomCuts(r, src.data, seed%2 == 0)
		for range r.IntN(3) {
			cuts.cuts[r.IntN(len(cuts.cuts))].sum = [sha256.Size]byte{}
		}
		opts := &testOptions{}
		if seed%3 == 2 {
			opts.Budget = 1 // nothing is stored
		}
		c := openCache(t, t.TempDir(), opts)
		b, err := c.Blob(src, provedCuts{cuts})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			off := r.Int64N(src.Size())
			n := 1 + r.Int64N(min(src.Size()-off, 50_000))
			wg.Go(func() { checkCutRead(t, b, src.data, cuts, off, n) })
		}
		wg.Wait()
		c.Wait()
		if opts.Budget == 0 {
			if !b.Complete() {
				t.Errorf("seed %d: not complete", seed)
			}
			for k, n := range cuts.matches() {
				if n != 1 {
					t.Errorf("seed %d: cut %d was matched %d times", seed, k, n)
				}
			}
			if starts := src.streams(); len(starts) > 1 {
				t.Errorf("seed %d: streams from %v", seed, starts)
			}
		}
		if bad := b.Stats().Bad; bad != 0 || src.alone != 0 {
			t.Errorf("seed %d: %d were bad, %d reads for one reader", seed, bad, src.alone)
		}
	}
}

// Two processes store the same blob by two ways to cut it at the same time.
func TestCutsBeside(t *testing.T) {
	t.Parallel()
	src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(500_000, 770)}}
	dir := t.TempDir()
	var blobs []*Blob
	for i := range uint64(4) {
		cuts := randomCuts(rand.New(rand.NewPCG(i/2, 17)), src.Data, false)
		b, err := openCache(t, dir, nil).Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	var wg sync.WaitGroup
	for _, b := range blobs {
		wg.Go(func() {
			for range 200 {
				if err := randomRead(b, src); err != nil {
					t.Error(err)
					return
				}
			}
			checkRead(t, b, src.FakeBlob, 0, src.Size())
		})
	}
	wg.Wait()
	for i, b := range blobs {
		if s := b.Stats(); s.Bad != 0 || s.Present != src.Size() || s.Fetched > src.Size()+10_000 {
			t.Errorf("Blob %d: %+v", i, s)
		}
	}
}
