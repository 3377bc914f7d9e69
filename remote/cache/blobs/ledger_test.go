package blobs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// Whatever is in the ledger, the budget holds.
func TestSpaceFileGarbage(t *testing.T) {
	testenv.Slow(t)
	valid := directory.EncodeLedger(directory.BootID(), 5<<20, 1<<20)
	tests := []struct {
		name  string
		data  []byte
		known bool
	}{
		{"nothing", nil, false},
		{"valid", valid, true},
		{"short", valid[:40], false},
		{"zeros", make([]byte, 4096), false},
		{"ones", func() []byte { p := make([]byte, 1<<16); fillBytes(p, 255); return p }(), false},
		{"another boot", directory.EncodeLedger([16]byte{1}, 5<<20, 1<<20), false},
		{"too much used", directory.EncodeLedger(directory.BootID(), directory.MaxTotal, 0), false},
		{"negative", directory.EncodeLedger(directory.BootID(), -1, -2), false},
		{"walked more than used", directory.EncodeLedger(directory.BootID(), 1, 2), false},
		{"noise", cachetest.RandomBytes(5000, 140), false},
		{"leases of nobody", append(append([]byte(nil), valid...), cachetest.RandomBytes(5000, 141)...), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := directory.DecodeLedger(tt.data, directory.BootID())
			if r.Known != tt.known {
				t.Errorf("known is %v, want %v", r.Known, tt.known)
			}
			dir := t.TempDir()
			c := limited(t, dir, 20*cachetest.TestChunk)
			if err := os.WriteFile(filepath.Join(dir, directory.LedgerName), tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(40*cachetest.TestChunk, 142)}
			b := cached(t, c, src)
			for range 2 {
				checkRead(t, b, src, 0, src.Size())
			}
			// Sizes that cannot be told from true ones are a walk away from
			// the truth.
			if got := cachetest.Usage(t, c); got > c.Budget()+int64(len(tt.data)) {
				t.Errorf("%d used of %d", got, c.Budget())
			}
			c.Close()
			checkSpace(t, dir)
		})
	}
}

func fillBytes(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}

// The directory is cleared by hand while it is in use.
func TestSpaceFileRemoved(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 20*cachetest.TestChunk)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(40*cachetest.TestChunk, 145)}
	b := cached(t, c, src)
	for range 3 {
		checkRead(t, b, src, 0, src.Size())
		if err := os.Remove(filepath.Join(dir, directory.LedgerName)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if got := cachetest.Usage(t, c); got > c.Budget() {
			t.Errorf("%d used of %d", got, c.Budget())
		}
	}
}

// At every moment at which nobody writes, what the ledger says is no less
// than what the directory takes and what is leased.
func TestSpaceIsNeverTooLow(t *testing.T) {
	testenv.Slow(t)
	dir := t.TempDir()
	limit := limited(t, dir, 60*cachetest.TestChunk).Budget()
	var caches []*testCache
	for range 3 {
		c := openCache(t, dir, &testOptions{Budget: limit, Warnf: t.Errorf})
		c.Idle = 0
		caches = append(caches, c)
	}
	srcs := make([]*cachetest.FakeBlob, 6)
	for i := range srcs {
		srcs[i] = &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20*cachetest.TestChunk+i, uint64(150+i))}
	}
	var temp *directory.TempFile
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 600 {
		c, src := caches[r.IntN(len(caches))], srcs[r.IntN(len(srcs))]
		what := r.IntN(10)
		switch what {
		default:
			// A blob file before its first chunk is found by the next walk:
			// this one gets a chunk at once.
			off := r.Int64N(src.Size() - 1)
			checkRead(t, cached(t, c, src), src, off, min(src.Size()-off, 1+r.Int64N(8*cachetest.TestChunk)))
		case 5:
			rec, err := c.Record(src)
			if err != nil {
				t.Fatal(err)
			}
			rec.Write(src.Data[:r.IntN(len(src.Data)-1)])
			if r.IntN(2) == 0 {
				rec.Write(src.Data[rec.n:])
				rec.Commit(chunksOf(src.Data, cachetest.TestChunk))
			}
			rec.Abort()
		case 6:
			c.NoteImage(meta.Image{Name: fmt.Sprint(r.IntN(5)), Manifest: src.Digest()})
		case 7:
			if _, err := c.Prune(directory.PruneOptions{To: r.Int64N(limit)}); err != nil {
				t.Fatal(err)
			}
		case 8:
			if err := useContent(c, src.Data[:1+r.Int64N(src.Size()-1)]); err != nil {
				t.Fatal(err)
			}
		case 9:
			if temp != nil && r.IntN(3) == 0 {
				temp.Close()
				temp = nil
			}
			if temp == nil {
				temp = newTemp(t, c, nil)
			}
			if _, err := temp.WriteAt(src.Data[:r.Int64N(src.Size())], temp.End); err != nil && !errors.Is(err, directory.ErrFull) {
				t.Fatal(err)
			}
		}
		err := c.Room.Locked(func() error {
			rec, err := c.Room.Ledger.Read(c.Room.Boot)
			used, leased := cachetest.Usage(t, c), int64(0)
			for _, c := range caches {
				leased += c.Room.Outstanding()
			}
			// New directories are found by the next walk.
			if rec.Known && rec.Used < used+leased-2*blobfile.BlockSize {
				t.Errorf("step %d (%d): space says %d; %d on disk, %d leased", i, what, rec.Used, used, leased)
			}
			if used > limit {
				t.Errorf("step %d (%d): %d on disk, the budget is %d", i, what, used, limit)
			}
			return err
		})
		if err != nil || t.Failed() {
			t.Fatal(err)
		}
	}
}

// Nobody waits long for a process that has the lock of the ledger and is stopped.
func TestSpaceLockBusy(t *testing.T) {
	dir := t.TempDir()
	c, other := limited(t, dir, 1<<20), limited(t, dir, 1<<20)
	c.Room.Ledger.Wait = 10 * time.Millisecond
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 160)}
	err := other.Room.Locked(func() error {
		checkRead(t, cached(t, c, src), src, 0, src.Size())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := cachetest.Held(c.at("."), src); got != 0 {
		t.Errorf("chunks %b written without a lease", got)
	}
}

func TestLeaseIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	watch := openCache(t, dir, &testOptions{Budget: 1 << 30})
	leased := func() (leases int64) {
		if err := watch.Room.Locked(func() error {
			rec, err := watch.Room.Ledger.Read(watch.Room.Boot)
			leases = rec.Leases
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return leases
	}
	c := openCache(t, dir, &testOptions{Budget: 1 << 30})
	if !c.MakeRoom(1) {
		t.Fatal("no room")
	}
	if got := leased(); got < directory.MaxBatch {
		t.Errorf("%d bytes leased, want at least %d", got, directory.MaxBatch)
	}
	before, _ := directory.KnownUse(cachetest.FilesAt(t, dir))
	c.Close()
	after, _ := directory.KnownUse(cachetest.FilesAt(t, dir))
	if got := leased(); got != 0 || before-after < directory.MaxBatch-directory.FileRoom(1) {
		t.Errorf("%d bytes leased after Close, and %d given back", got, before-after)
	}
}
