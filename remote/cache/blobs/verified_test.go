package blobs

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
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// Marks are never lowered, by whomever they are made at the same time.
func TestSetVerification(t *testing.T) {
	dir := t.TempDir()
	c, other := openCache(t, dir, nil), openCache(t, dir, nil)
	d := digest.FromString("a")
	for _, step := range []struct{ set, want meta.Verification }{
		{meta.VerifiedNot, meta.VerifiedNot},
		{meta.VerifiedWrong, meta.VerifiedNot},
		{meta.VerifiedByPublisher, meta.VerifiedByPublisher},
		{meta.VerifiedByChunk, meta.VerifiedByChunk},
		{meta.VerifiedByPublisher, meta.VerifiedByChunk},
		{meta.VerifiedWhole, meta.VerifiedWhole},
		{meta.VerifiedByChunk, meta.VerifiedWhole},
		{meta.VerifiedWhole + 1, meta.VerifiedWhole},
	} {
		c.SetVerification(d, step.set)
		if got := other.Verification(d); got != step.want {
			t.Errorf("after SetVerification(%d): %v, want %v", step.set, got, step.want)
		}
	}
	c.SetVerification("sha256:../../x", meta.VerifiedWhole)
	if got := c.Verification("sha256:../../x"); got != meta.VerifiedNot {
		t.Errorf("a path as digest has %v", got)
	}

	// Somebody else makes a mark between a look and the lock.
	d = digest.FromString("c")
	c.SetMark(d, "", meta.Mark{Verification: meta.VerifiedByChunk}, func(old meta.Mark) bool {
		if old.Verification == meta.VerifiedNot {
			other.SetVerification(d, meta.VerifiedWhole)
		}
		return old.Verification < meta.VerifiedByChunk
	})
	if got := c.Verification(d); got != meta.VerifiedWhole {
		t.Errorf("a mark made meanwhile became %v", got)
	}

	d = digest.FromString("b")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			v := meta.VerifiedByPublisher
			if i == 20 {
				v = meta.VerifiedWhole
			}
			[]*testCache{c, other}[i%2].SetVerification(d, v)
		})
	}
	wg.Wait()
	if got := c.Verification(d); got != meta.VerifiedWhole {
		t.Errorf("after 40 at the same time: %v", got)
	}
	if err := os.WriteFile(c.at(c.Name(directory.Verified, d)), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.Verification(d); got != meta.VerifiedNot {
		t.Errorf("of garbage: %v", got)
	}
	cachetest.CheckTmp(t, dir)
}

// In whatever order the pieces come, and whoever brings them, the whole is
// checked when the last one has come.
func TestWholeInPieces(t *testing.T) {
	testenv.Slow(t)
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(1100*cachetest.TestChunk+3, 250+seed)}
			caches := []*testCache{openCache(t, dir, nil), openCache(t, dir, nil)}
			blobs := []*Blob{cached(t, caches[0], src), cached(t, caches[1], src)}
			order := r.Perm(1101)
			last := order[1100]
			for _, k := range order[:1100] {
				checkRead(t, blobs[r.IntN(2)], src, int64(k)*cachetest.TestChunk, 1)
			}
			synctest.Wait()
			if got := caches[0].Verification(src.Digest()); got != meta.VerifiedNot {
				t.Errorf("without chunk %d: %v", last, got)
			}
			checkRead(t, blobs[r.IntN(2)], src, int64(last)*cachetest.TestChunk, 1)
			synctest.Wait()
			if got := caches[0].Verification(src.Digest()); got != meta.VerifiedWhole {
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
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(9*cachetest.TestChunk, 260)}
		c := openCache(t, dir, nil)
		checkRead(t, cached(t, c, src), src, 0, src.Size())
		synctest.Wait()
		os.Remove(c.at(c.Name(directory.Verified, src.Digest())))
		c = openCache(t, dir, nil)
		checkRead(t, cached(t, c, src), src, 100, 1)
		synctest.Wait()
		if got := c.Verification(src.Digest()); got != meta.VerifiedWhole {
			t.Errorf("Verification() = %v", got)
		}
	})
}

// An index whose chunks are not the blob: nothing shows until all is there.
func TestLyingIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const c = cachetest.TestChunk
		dir := t.TempDir()
		honest := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(6*c, 261)}
		// Bytes that somebody made up, with sums to match, for the digest of
		// the honest blob: index and registry are in league.
		made := append([]byte(nil), honest.Data...)
		made[3*c] ^= 1
		liar := &cachetest.ClaimedBlob{FakeBlob: cachetest.FakeBlob{T: t, Data: made}, Sum: honest.Digest(), Length: honest.Size()}
		var w cachetest.Warnings
		cache := openCache(t, dir, &testOptions{Warnf: w.Warnf})
		b, err := cache.Blob(liar, cutsOfSize(made, c))
		if err != nil {
			t.Fatal(err)
		}
		good := cached(t, cache, honest)
		for _, k := range []int64{5, 0, 3, 1, 4} {
			checkRead(t, b, &liar.FakeBlob, k*c, c)
		}
		b.Prefetch(2*c, c)
		synctest.Wait()
		w.Check(t, honest.Digest().String(), "index is wrong")
		if got := cache.Verification(honest.Digest()); got != meta.VerifiedWrong {
			t.Errorf("Verification() = %v", got)
		}
		if _, err := os.Stat(cachetest.BlobPath(dir, honest)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the blob is still there: %v", err)
		}
		checkRefused := func(b *Blob) {
			t.Helper()
			asked := len(liar.Asked())
			b.Prefetch(0, c)
			if _, err := b.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, remote.ErrDigest) {
				t.Errorf("ReadAt() = %v, want ErrDigest", err)
			}
			if got := len(liar.Asked()); got != asked {
				t.Error("the source was asked")
			}
		}
		checkRefused(b)
		if err := cache.Fill(t.Context(), []*Blob{b}, nil); !errors.Is(err, remote.ErrDigest) {
			t.Errorf("Fill() = %v, want ErrDigest", err)
		}
		// So it is for the next process, and a weaker check changes nothing.
		cache.SetVerification(honest.Digest(), meta.VerifiedByChunk)
		next := openCache(t, dir, nil)
		b, err = next.Blob(liar, cutsOfSize(made, c))
		if err != nil {
			t.Fatal(err)
		}
		checkRefused(b)

		// Another index may be right.
		checkRead(t, good, honest, 0, 3*c)
		good = cached(t, next, honest)
		checkRead(t, good, honest, 0, honest.Size())
		synctest.Wait()
		if got := next.Verification(honest.Digest()); got != meta.VerifiedWhole {
			t.Errorf("with another index: %v", got)
		}
		checkRead(t, good, honest, 0, honest.Size())
	})
}

// Bytes that change on disk before the whole is checked are not the index's
// fault.
func TestWholeDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const c = cachetest.TestChunk
		dir := t.TempDir()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(6*c, 262)}
		var w cachetest.Warnings
		cache := openCache(t, dir, &testOptions{Warnf: w.Warnf})
		b := cached(t, cache, src)
		checkRead(t, b, src, 0, 5*c)
		f, err := os.OpenFile(cachetest.BlobPath(dir, src), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.WriteAt([]byte{src.Data[2*c] ^ 1}, 2*c)
		checkRead(t, b, src, 5*c, c)
		synctest.Wait()
		if got := cache.Verification(src.Digest()); got != meta.VerifiedNot || len(w.All) > 0 {
			t.Errorf("Verification() = %v, warnings %q", got, w.All)
		}
		checkRead(t, b, src, 2*c, c)
		synctest.Wait()
		if got := cache.Verification(src.Digest()); got != meta.VerifiedWhole || len(w.All) > 0 {
			t.Errorf("when it is mended: Verification() = %v, warnings %q", got, w.All)
		}
	})
}

// Chunks that go away while the whole is checked make no index a liar.
func TestWholeEvicted(t *testing.T) {
	testenv.Slow(t)
	dir := t.TempDir()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100*cachetest.TestChunk, 263)}
	c := openCache(t, dir, &testOptions{Warnf: t.Errorf})
	b := cached(t, c, src)
	checkRead(t, b, src, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := cachetest.Evict(cachetest.BlobPath(dir, src), []int64{rand.Int64N(100)}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		checkRead(t, b, src, 0, src.Size())
		os.Remove(c.at(c.Name(directory.Verified, src.Digest())))
		b.s.whole.settled.Store(false)
	}
	cancel()
	wg.Wait()
}
