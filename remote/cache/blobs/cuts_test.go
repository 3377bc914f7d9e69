package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// testCuts are Cuts of which each has the SHA-256 of its bytes, or none.
type testCuts struct {
	cuts []testCut
	sum  [sha256.Size]byte

	mu      sync.Mutex
	matched map[int64]int // calls of Match, by cut
}

type testCut struct {
	off, end int64
	sum      [sha256.Size]byte // zero: nothing matches
}

func (c *testCuts) Len() int64 { return int64(len(c.cuts)) }

func (c *testCuts) Bounds(k int64) (off, end int64) { return c.cuts[k].off, c.cuts[k].end }

func (c *testCuts) Sum() [sha256.Size]byte { return c.sum }

func (c *testCuts) Match(k int64, data []byte) bool {
	c.mu.Lock()
	c.matched[k]++
	c.mu.Unlock()
	return sha256.Sum256(data) == c.cuts[k].sum
}

// matches returns how often each cut was matched, and forgets it.
func (c *testCuts) matches() map[int64]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.matched
	c.matched = map[int64]int{}
	return m
}

// provedCuts are testCuts that say which nothing matches.
type provedCuts struct{ *testCuts }

func (c provedCuts) Proved(k int64) bool { return c.cuts[k].sum != [sha256.Size]byte{} }

// cutsOf cuts data at the bounds, each of which is where a cut begins and ends.
func cutsOf(data []byte, bounds ...[2]int64) *testCuts {
	c := &testCuts{matched: map[int64]int{}}
	h := sha256.New()
	for _, b := range bounds {
		x := testCut{off: b[0], end: b[1]}
		x.sum = sha256.Sum256(data[x.off:x.end])
		c.cuts = append(c.cuts, x)
		binary.Write(h, binary.BigEndian, b[:])
		h.Write(x.sum[:])
	}
	h.Sum(c.sum[:0])
	return c
}

// randomCuts cuts data anywhere: tiny and huge cuts, of which some share a byte, with
// gaps between them or without.
func randomCuts(r *rand.Rand, data []byte, gaps bool) *testCuts {
	var bounds [][2]int64
	size, shared := int64(len(data)), false
	for at := int64(0); at < size; {
		switch n := r.IntN(8); {
		case gaps && !shared && n == 0:
			at += 1 + r.Int64N(20)
		case gaps && !shared && n == 1:
			at += 1 + r.Int64N(40_000)
		}
		if at >= size {
			break
		}
		n := 1 + r.Int64N([]int64{1, 10, 4096, 20_000, 150_000}[r.IntN(5)])
		if shared {
			n++
		}
		end := min(at+n, size)
		bounds = append(bounds, [2]int64{at, end})
		if at, shared = end, r.IntN(3) == 0 && n > 1 && end < size; shared {
			at-- // a byte that both have
		}
	}
	return cutsOf(data, bounds...)
}

// covers reports whether cuts have the byte at off.
func (c *testCuts) covers(off int64) bool {
	for _, x := range c.cuts {
		if x.off <= off && off < x.end && x.sum != [sha256.Size]byte{} {
			return true
		}
	}
	return false
}

// Any read of a blob that is cut anyhow gives the bytes up to the first that is in no
// cut, or that of a cut which nothing matches; again from disk, and again in another
// process.
func TestCuts(t *testing.T) {
	testenv.Slow(t)
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 7))
		src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(300_000, 500+seed)}}
		cuts := randomCuts(r, src.Data, true)
		for range r.IntN(3) {
			cuts.cuts[r.IntN(len(cuts.cuts))].sum = [sha256.Size]byte{}
		}
		var given Cuts = cuts
		if seed%2 == 0 {
			given = provedCuts{cuts}
		}
		dir := t.TempDir()
		for round := range 2 {
			c := openCache(t, dir, &testOptions{MaxRequest: 100_000})
			b, err := c.Blob(src, given)
			if err != nil {
				t.Fatal(err)
			}
			for range 300 {
				off := r.Int64N(src.Size())
				n := 1 + r.Int64N(min(src.Size()-off, []int64{1, 100, 5000, 100_000}[r.IntN(4)]))
				checkCutRead(t, b, src.Data, cuts, off, n)
			}
			if bad := c.Stats(); round == 1 && (bad.BadStored != 0 || bad.Requests > 0 && seed%2 == 0) {
				t.Errorf("seed %d: the second time: %+v", seed, bad)
			}
			if seed%2 == 0 {
				if err := c.Fill(t.Context(), []*Blob{b}, nil); err != nil || !b.Complete() {
					t.Errorf("seed %d: Fill() = %v", seed, err)
				}
			}
			for k, n := range cuts.matches() {
				// Where a read fails others may be under way that nobody waits for.
				if proved := (provedCuts{cuts}).Proved(k); seed%2 == 0 && (n > 1 || !proved) {
					t.Errorf("seed %d: cut %d was matched %d times", seed, k, n)
				}
			}
			c.Close()
		}
	}
}

// checkCutRead reads n bytes from off.
func checkCutRead(t *testing.T, b *Blob, data []byte, cuts *testCuts, off, n int64) {
	t.Helper()
	want := int64(0)
	for want < n && cuts.covers(off+want) {
		want++
	}
	p := make([]byte, n)
	got, err := b.ReadAt(t.Context(), p, off)
	if want == n && (err != nil || int64(got) != n) || !bytes.Equal(p[:got], data[off:off+int64(got)]) {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
	}
	if want < n && !errors.Is(err, remote.ErrDigest) {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v, though byte %d is in no cut", n, off, got, err, off+want)
	}
}

// What is in no cut, or one that nothing matches, is not asked for.
func TestCutsGap(t *testing.T) {
	t.Parallel()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100_000, 520)}
	cuts := cutsOf(src.Data, [2]int64{10, 30_000}, [2]int64{30_000, 40_000}, [2]int64{60_000, 99_990})
	cuts.cuts[1].sum = [sha256.Size]byte{}
	c := openCache(t, t.TempDir(), nil)
	b, err := c.Blob(src, provedCuts{cuts})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 9, 30_000, 39_999, 40_000, 59_999, 99_990, 99_999} {
		n, err := b.ReadAt(t.Context(), make([]byte, 100), off)
		if n != 0 && off != 9 || !errors.Is(err, ErrUnproved) || !errors.Is(err, remote.ErrDigest) {
			t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
		}
	}
	if n := len(src.Asked()); n != 0 {
		t.Fatalf("the source was asked %d times", n)
	}
	p := make([]byte, 100)
	if n, err := b.ReadAt(t.Context(), p, 29_990); n != 10 || !errors.Is(err, ErrUnproved) || !bytes.Equal(p[:10], src.Data[29_990:30_000]) {
		t.Errorf("a read into a gap = %d, %v", n, err)
	}
	if b.Complete() {
		t.Error("complete with one cut")
	}
	if err := c.Fill(t.Context(), []*Blob{b}, nil); err != nil {
		t.Errorf("Fill() = %v", err)
	}
	if !b.Complete() {
		t.Error("not complete after Fill")
	}
	if got := src.Asked(); len(got) != 2 || got[1] != (cachetest.Span{Off: 60_000, End: 99_990}) {
		t.Errorf("asked for %v", got)
	}
}

// Cuts that cannot be are refused.
func TestCutsRefused(t *testing.T) {
	t.Parallel()
	src := &cachetest.FakeBlob{T: t, Data: make([]byte, 18<<20)}
	c := openCache(t, t.TempDir(), nil)
	for name, bounds := range map[string][][2]int64{
		"empty":             {{5, 5}},
		"backwards":         {{5, 4}},
		"negative":          {{-1, 4}},
		"behind the end":    {{5, 18<<20 + 1}},
		"too long":          {{0, 16<<20 + 1}},
		"two bytes shared":  {{0, 10}, {8, 20}},
		"not in order":      {{10, 20}, {0, 10}},
		"one in another":    {{0, 10}, {9, 10}},
		"the same one":      {{0, 1}, {0, 2}},
		"one at its end":    {{0, 2}, {1, 2}},
		"a huge number":     {{1 << 61, 1<<61 + 1}},
		"an overflow":       {{1<<63 - 2, -1 << 63}},
		"longer than int64": {{-1 << 63, 1<<63 - 1}},
	} {
		cuts := &testCuts{}
		for _, b := range bounds {
			cuts.cuts = append(cuts.cuts, testCut{off: b[0], end: b[1]})
		}
		if _, err := c.Blob(src, cuts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := c.Blob(src, manyCuts{}); err == nil {
		t.Error("too many are accepted")
	}
	if b, err := c.Blob(src, &testCuts{}); err != nil {
		t.Errorf("no cuts: %v", err)
	} else if n, err := b.ReadAt(context.Background(), make([]byte, 1), 0); n != 0 || !errors.Is(err, ErrUnproved) {
		t.Errorf("a read by no cuts = %d, %v", n, err)
	}
}

// manyCuts are more than can be.
type manyCuts struct{}

func (manyCuts) Len() int64                      { return 1 << 60 }
func (manyCuts) Bounds(k int64) (off, end int64) { return k, k + 1 }
func (manyCuts) Match(int64, []byte) bool        { return true }
func (manyCuts) Sum() [sha256.Size]byte          { return [sha256.Size]byte{1} }
func (manyCuts) Proved(int64) bool               { return true }

// Two ways to cut a blob have files of their own, beside that of its chunks.
func TestCutsFiles(t *testing.T) {
	t.Parallel()
	src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100_000, 530)}}
	a, z := cutsOf(src.Data, [2]int64{0, 50_000}, [2]int64{49_999, 100_000}), cutsOf(src.Data, [2]int64{0, 100_000})
	dir := t.TempDir()
	for _, cuts := range []Cuts{a, z, chunksOf(src.Data, cachetest.TestChunk)} {
		c := openCache(t, dir, nil)
		b, err := c.Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		checkRead(t, b, src.FakeBlob, 0, src.Size())
		if !b.Complete() {
			t.Error("not complete")
		}
	}
	hex := src.Digest().Encoded()
	c := openCache(t, dir, nil)
	c.Wait()
	want := map[string]bool{"blobs/" + hex: true, "blobs/" + hex + "-" + directory.Key(a.sum): true, "blobs/" + hex + "-" + directory.Key(z.sum): true}
	for _, name := range cachetest.Files(t, dir) {
		if !want[name] {
			t.Errorf("found %s", name)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	h := c.Holding(src.Digest())
	if h.Size != src.Size() || h.Cached != 3*src.Size() || len(h.Cuts) != 2 || h.Cuts[0].Cached+h.Cuts[1].Cached != 2*src.Size() {
		t.Errorf("Holding() = %+v", h)
	}
	c.RemoveCuts(src.Digest(), a.sum)
	if h := c.Holding(src.Digest()); len(h.Cuts) != 1 || h.Cuts[0].Key != directory.Key(z.sum) {
		t.Errorf("Holding() = %+v after RemoveCuts", h)
	}
}

// Each Blob is matched by the Cuts that it was given, also where others have the same
// sum: they may hand on what they decode.
func TestCutsOwn(t *testing.T) {
	t.Parallel()
	src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100_000, 540)}}
	c := openCache(t, t.TempDir(), nil)
	for i := range int64(3) {
		cuts := evenCuts(src.Data, 0, 10_000)
		b, err := c.Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		checkRead(t, b, src.FakeBlob, 0, 10_000*i+1)
		if m := cuts.matches(); len(m) != 1 || m[i] != 1 {
			t.Errorf("the Cuts of Blob %d matched %v", i, m)
		}
	}
}
