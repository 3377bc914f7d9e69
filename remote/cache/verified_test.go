package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// Marks are never lowered, by whomever they are made at the same time.
func TestSetVerification(t *testing.T) {
	dir := t.TempDir()
	c, other := openCache(t, dir, nil), openCache(t, dir, nil)
	d := digest.FromString("a")
	for _, step := range []struct{ set, want Verification }{
		{VerifiedNot, VerifiedNot},
		{VerifiedWrong, VerifiedNot},
		{VerifiedByPublisher, VerifiedByPublisher},
		{VerifiedByChunk, VerifiedByChunk},
		{VerifiedByPublisher, VerifiedByChunk},
		{VerifiedWhole, VerifiedWhole},
		{VerifiedByChunk, VerifiedWhole},
		{VerifiedWhole + 1, VerifiedWhole},
	} {
		c.SetVerification(d, step.set)
		if got := other.Verification(d); got != step.want {
			t.Errorf("after SetVerification(%d): %v, want %v", step.set, got, step.want)
		}
	}
	c.SetVerification("sha256:../../x", VerifiedWhole)
	if got := c.Verification("sha256:../../x"); got != VerifiedNot {
		t.Errorf("a path as digest has %v", got)
	}

	// Somebody else makes a mark between a look and the lock.
	d = digest.FromString("c")
	c.setMark(d, mark{Verification: VerifiedByChunk}, func(old mark) bool {
		if old.Verification == VerifiedNot {
			other.SetVerification(d, VerifiedWhole)
		}
		return old.Verification < VerifiedByChunk
	})
	if got := c.Verification(d); got != VerifiedWhole {
		t.Errorf("a mark made meanwhile became %v", got)
	}

	d = digest.FromString("b")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			v := VerifiedByPublisher
			if i == 20 {
				v = VerifiedWhole
			}
			[]*testCache{c, other}[i%2].SetVerification(d, v)
		})
	}
	wg.Wait()
	if got := c.Verification(d); got != VerifiedWhole {
		t.Errorf("after 40 at the same time: %v", got)
	}
	if err := os.WriteFile(c.at(c.name(verifiedDir, d)), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.Verification(d); got != VerifiedNot {
		t.Errorf("of garbage: %v", got)
	}
	checkTmp(t, dir)
}

// In whatever order the pieces come, and whoever brings them, the whole is
// checked when the last one has come.
func TestWholeInPieces(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			src := &fakeBlob{t: t, data: randomBytes(1100*testChunk+3, 250+seed)}
			caches := []*testCache{openCache(t, dir, nil), openCache(t, dir, nil)}
			blobs := []*Blob{cached(t, caches[0], src), cached(t, caches[1], src)}
			order := r.Perm(1101)
			last := order[1100]
			for _, k := range order[:1100] {
				checkRead(t, blobs[r.IntN(2)], src, int64(k)*testChunk, 1)
			}
			synctest.Wait()
			if got := caches[0].Verification(src.Digest()); got != VerifiedNot {
				t.Errorf("without chunk %d: %v", last, got)
			}
			checkRead(t, blobs[r.IntN(2)], src, int64(last)*testChunk, 1)
			synctest.Wait()
			if got := caches[0].Verification(src.Digest()); got != VerifiedWhole {
				t.Errorf("when chunk %d has come: %v", last, got)
			}
		})
	}
}

// All is there, but the process was killed before it had checked the whole:
// the next one does so when it first reads something.
func TestWholeAfterKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		src := &fakeBlob{t: t, data: randomBytes(9*testChunk, 260)}
		c := openCache(t, dir, nil)
		checkRead(t, cached(t, c, src), src, 0, src.Size())
		synctest.Wait()
		os.Remove(c.at(c.name(verifiedDir, src.Digest())))
		c = openCache(t, dir, nil)
		checkRead(t, cached(t, c, src), src, 100, 1)
		synctest.Wait()
		if got := c.Verification(src.Digest()); got != VerifiedWhole {
			t.Errorf("Verification() = %v", got)
		}
	})
}

// An index whose chunks are not the blob: nothing shows until all is there.
func TestLyingIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const c = testChunk
		dir := t.TempDir()
		honest := &fakeBlob{t: t, data: randomBytes(6*c, 261)}
		// Bytes that somebody made up, with sums to match, for the digest of
		// the honest blob: index and registry are in league.
		made := append([]byte(nil), honest.data...)
		made[3*c] ^= 1
		liar := &claimedBlob{fakeBlob: fakeBlob{t: t, data: made}, digest: honest.Digest(), size: honest.Size()}
		var w warnings
		cache := openCache(t, dir, &testOptions{Warnf: w.warnf})
		b, err := cache.Blob(liar, chunksOf(made, c))
		if err != nil {
			t.Fatal(err)
		}
		good := cached(t, cache, honest)
		for _, k := range []int64{5, 0, 3, 1, 4} {
			checkRead(t, b, &liar.fakeBlob, k*c, c)
		}
		b.Prefetch(2*c, c)
		synctest.Wait()
		w.check(t, honest.Digest().String(), "index is wrong")
		if got := cache.Verification(honest.Digest()); got != VerifiedWrong {
			t.Errorf("Verification() = %v", got)
		}
		if _, err := os.Stat(blobPath(dir, honest)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the blob is still there: %v", err)
		}
		checkRefused := func(b *Blob) {
			t.Helper()
			asked := len(liar.asked())
			b.Prefetch(0, c)
			if _, err := b.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, remote.ErrDigest) {
				t.Errorf("ReadAt() = %v, want ErrDigest", err)
			}
			if got := len(liar.asked()); got != asked {
				t.Error("the source was asked")
			}
		}
		checkRefused(b)
		if err := cache.Fill(t.Context(), []*Blob{b}, nil); !errors.Is(err, remote.ErrDigest) {
			t.Errorf("Fill() = %v, want ErrDigest", err)
		}
		// So it is for the next process, and a weaker check changes nothing.
		cache.SetVerification(honest.Digest(), VerifiedByChunk)
		next := openCache(t, dir, nil)
		b, err = next.Blob(liar, chunksOf(made, c))
		if err != nil {
			t.Fatal(err)
		}
		checkRefused(b)

		// Another index may be right.
		checkRead(t, good, honest, 0, 3*c)
		good = cached(t, next, honest)
		checkRead(t, good, honest, 0, honest.Size())
		synctest.Wait()
		if got := next.Verification(honest.Digest()); got != VerifiedWhole {
			t.Errorf("with another index: %v", got)
		}
		checkRead(t, good, honest, 0, honest.Size())
	})
}

// Bytes that change on disk before the whole is checked are not the index's
// fault.
func TestWholeDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const c = testChunk
		dir := t.TempDir()
		src := &fakeBlob{t: t, data: randomBytes(6*c, 262)}
		var w warnings
		cache := openCache(t, dir, &testOptions{Warnf: w.warnf})
		b := cached(t, cache, src)
		checkRead(t, b, src, 0, 5*c)
		f, err := os.OpenFile(blobPath(dir, src), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.WriteAt([]byte{src.data[2*c] ^ 1}, 2*c)
		checkRead(t, b, src, 5*c, c)
		synctest.Wait()
		if got := cache.Verification(src.Digest()); got != VerifiedNot || len(w.all) > 0 {
			t.Errorf("Verification() = %v, warnings %q", got, w.all)
		}
		checkRead(t, b, src, 2*c, c)
		synctest.Wait()
		if got := cache.Verification(src.Digest()); got != VerifiedWhole || len(w.all) > 0 {
			t.Errorf("when it is mended: Verification() = %v, warnings %q", got, w.all)
		}
	})
}

// Chunks that go away while the whole is checked make no index a liar.
func TestWholeEvicted(t *testing.T) {
	dir := t.TempDir()
	src := &fakeBlob{t: t, data: randomBytes(100*testChunk, 263)}
	c := openCache(t, dir, &testOptions{Warnf: t.Errorf})
	b := cached(t, c, src)
	checkRead(t, b, src, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := evict(blobPath(dir, src), []int64{rand.Int64N(100)}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		checkRead(t, b, src, 0, src.Size())
		os.Remove(c.at(c.name(verifiedDir, src.Digest())))
		b.s.whole.settled.Store(false)
	}
	cancel()
	wg.Wait()
}
