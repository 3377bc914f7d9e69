package blobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestVerify(t *testing.T) {
	const c = cachetest.TestChunk
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(6*c+10, 270)}
	chunks := cutsOfSize(src.Data, c)
	flip := func(off int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := make([]byte, 1)
			f.ReadAt(p, off)
			p[0] ^= 1
			f.WriteAt(p, off)
		}
	}
	footer, whole := blobfile.Layout{Size: src.Size(), Chunk: c}.Footer(), meta.VerifiedWhole
	if cachetest.AsCuts {
		footer, whole = footer+7*12, meta.VerifiedNot
	}
	tests := []struct {
		name   string
		have   []int64 // chunks
		damage func(t *testing.T, path string)
		want   Check
		mark   meta.Verification
	}{
		{"nothing", nil, nil, Check{}, meta.VerifiedNot},
		{"some", []int64{1, 6}, nil, Check{Checked: 2}, meta.VerifiedNot},
		{"all", []int64{0, 1, 2, 3, 4, 5, 6}, nil, Check{Checked: 7}, whole},
		{"a bit", []int64{1, 4, 6}, flip(4*c + 9), Check{Checked: 3, Bad: 1, BadBytes: c}, meta.VerifiedNot},
		{"a bit of the last", []int64{1, 4, 6}, flip(6*c + 9), Check{Checked: 3, Bad: 1, BadBytes: 10}, meta.VerifiedNot},
		{"a hole", []int64{1, 4}, flip(5 * c), Check{Checked: 2}, meta.VerifiedNot},
		{"footer", []int64{1}, flip(footer), Check{Bad: 1}, meta.VerifiedNot},
		{"cut", []int64{1}, func(t *testing.T, path string) { os.Truncate(path, 3*c) }, Check{Bad: 1}, meta.VerifiedNot},
		{"empty", []int64{1}, func(t *testing.T, path string) { os.Truncate(path, 0) }, Check{}, meta.VerifiedNot},
		{"retired", []int64{1}, func(t *testing.T, path string) {
			f, _ := os.OpenFile(path, os.O_RDWR, 0)
			blobfile.Retire(f)
			f.Close()
		}, Check{}, meta.VerifiedNot},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			reader := openCache(t, dir, nil)
			b := cached(t, reader, src)
			for _, k := range tt.have {
				checkRead(t, b, src, k*c, 1)
			}
			reader.Wait()
			os.Remove(reader.at(reader.Name(directory.Verified, src.Digest())))
			if tt.damage != nil {
				tt.damage(t, cachetest.BlobPath(dir, src))
			}
			checker := openCache(t, dir, nil)
			got, err := checker.blobsPart.Verify(t.Context(), src.Digest(), src.Size(), chunks, nil)
			if err != nil || got != tt.want {
				t.Errorf("Verify() = %+v, %v; want %+v", got, err, tt.want)
			}
			if got := checker.Verification(src.Digest()); got != tt.mark {
				t.Errorf("Verification() = %v, want %v", got, tt.mark)
			}
			again, err := checker.blobsPart.Verify(t.Context(), src.Digest(), src.Size(), chunks, nil)
			if left := tt.want.Checked - tt.want.Bad; err != nil || again.Bad != 0 || left >= 0 && again.Checked != left {
				t.Errorf("the second time: %+v, %v", again, err)
			}
			// Who has read a chunk before gets the right bytes, too.
			for _, k := range tt.have {
				checkRead(t, b, src, k*c, 10)
			}
			checkRead(t, b, src, 0, src.Size())
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 271)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	b := cached(t, c, src)
	checkRead(t, b, src, 0, src.Size())
	if _, err := c.blobsPart.Verify(t.Context(), "sha256:../x", 1, Chunks{}, nil); err == nil {
		t.Error("a path as digest is accepted")
	}
	if _, err := c.blobsPart.Verify(t.Context(), src.Digest(), src.Size(), Chunks{Size: cachetest.TestChunk}, nil); err == nil {
		t.Error("chunks without sums are accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.blobsPart.Verify(ctx, src.Digest(), src.Size(), cutsOfSize(src.Data, cachetest.TestChunk), nil); err != context.Canceled {
		t.Errorf("with an ended context: %v", err)
	}
}

// A chunk that is right by the time that others are kept out stays.
func TestRemoveUnlessRight(t *testing.T) {
	dir := t.TempDir()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 274)}
	b := cached(t, openCache(t, dir, nil), src)
	checkRead(t, b, src, 0, src.Size())
	file := b.s.file.Load()
	for _, right := range []bool{true, false} {
		removed, err := file.removeUnless(1, func(int64) (bool, error) { return right, nil })
		if removed == right || err != nil || (file.present(1, 2)[0] == 0) == right || file.current() != right {
			t.Errorf("right %v: removed %v, %v; word %d, current %v", right, removed, err, file.present(1, 2)[0], file.current())
		}
	}
}

// A file with other chunks than the index has is of no use to anybody.
func TestVerifyOtherChunks(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 274)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	checkRead(t, cached(t, c, src), src, 0, src.Size())
	got, err := c.blobsPart.Verify(t.Context(), src.Digest(), src.Size(), chunksOf(src.Data, 2*cachetest.TestChunk), nil)
	if want := (Check{Bad: 1}); err != nil || got != want || cachetest.Exists(cachetest.BlobPath(dir, src)) {
		t.Errorf("Verify() = %+v, %v, want %+v; it is there: %v", got, err, want, cachetest.Exists(cachetest.BlobPath(dir, src)))
	}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
}

func TestCheckCuts(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	data := cachetest.RandomBytes(2*cachetest.TestChunk, 275)
	d, size := digest.FromBytes(data), int64(len(data))
	right, other := chunksOf(data, cachetest.TestChunk), chunksOf(cachetest.RandomBytes(len(data), 276), cachetest.TestChunk)
	c.SetMark(d, "", meta.Mark{Verification: meta.VerifiedWrong, When: time.Now(), Table: hex.EncodeToString(sha256Of(other.Sums))}, func(meta.Mark) bool { return true })
	for _, tt := range []struct {
		name   string
		chunks Chunks
		ok     bool
	}{
		{"right", right, true},
		{"known to be wrong", other, false},
		{"too few", Chunks{Size: cachetest.TestChunk, Sums: right.Sums[:32]}, false},
		{"too big", Chunks{Size: blobfile.MaxChunk * 2, Sums: right.Sums[:32]}, false},
		{"no size", Chunks{Sums: right.Sums}, false},
	} {
		if err := c.CheckCuts(d, size, tt.chunks); (err == nil) != tt.ok {
			t.Errorf("%s: CheckCuts() = %v", tt.name, err)
		}
	}
	c.SetVerification(d, meta.VerifiedWhole)
	if err := c.CheckCuts(d, size, other); err != nil {
		t.Errorf("after the whole was checked: %v", err)
	}
}

func sha256Of(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// verify tells that an index lied as soon as the blob is whole.
func TestVerifyLie(t *testing.T) {
	data := cachetest.RandomBytes(3*cachetest.TestChunk, 272)
	liar := &cachetest.ClaimedBlob{FakeBlob: cachetest.FakeBlob{T: t, Data: data}, Sum: digest.FromString("another"), Length: int64(len(data))}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	chunks := chunksOf(data, cachetest.TestChunk)
	r, err := c.Record(liar)
	if err != nil {
		t.Fatal(err)
	}
	r.Write(data)
	if err := r.Commit(chunks); err != nil {
		t.Fatal(err)
	}
	got, err := c.blobsPart.Verify(t.Context(), liar.Sum, liar.Length, chunks, nil)
	if want := (Check{Checked: 3, Bad: 3, BadBytes: liar.Length, Refuted: true}); err != nil || got != want {
		t.Errorf("Verify() = %+v, %v; want %+v", got, err, want)
	}
	if got := c.Verification(liar.Sum); got != meta.VerifiedWrong {
		t.Errorf("Verification() = %v", got)
	}
}

// Others read and remove while a blob is verified: nothing is found wrong.
func TestVerifyAmongOthers(t *testing.T) {
	testenv.Slow(t)
	dir := t.TempDir()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60*cachetest.TestChunk, 273)}
	c, other := openCache(t, dir, nil), openCache(t, dir, nil)
	b := cached(t, other, src)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for k := int64(0); ; k = (k + 7) % 60 {
			select {
			case <-done:
				return
			default:
			}
			checkReadNoFatal(t, b, src, k*cachetest.TestChunk, cachetest.TestChunk)
			if err := cachetest.Evict(cachetest.BlobPath(dir, src), []int64{(k * 3) % 60}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for range 300 {
		got, err := c.blobsPart.Verify(t.Context(), src.Digest(), src.Size(), chunksOf(src.Data, cachetest.TestChunk), nil)
		if err != nil || got.Bad > 0 {
			t.Errorf("Verify() = %+v, %v", got, err)
			break
		}
	}
	close(done)
	wg.Wait()
}
