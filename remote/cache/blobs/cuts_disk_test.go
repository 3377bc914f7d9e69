package blobs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// layoutAt returns the layout of the blob file at path.
func layoutAt(t *testing.T, path string) blobfile.Layout {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, _, ok := blobfile.ReadFooter(f)
	if !ok {
		t.Fatalf("%s is no blob file", path)
	}
	return l
}

// age makes it look as if some chunks of the blob file at path had been used last an hour
// before the others.
func age(t *testing.T, path string, chunks []int64) {
	t.Helper()
	l := layoutAt(t, path)
	cachetest.Damage(t, path, func(f *os.File) error {
		for _, k := range chunks {
			if err := l.SetWord(f, k, blobfile.Stamp()-3600); err != nil {
				return err
			}
		}
		return nil
	})
}

// When cuts go, all of their blocks go in which no other has a byte, and what the others have
// stays, also the bytes that they shared with those that went.
func TestCutsEvicted(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 11))
		src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(400_000, 600+seed)}}
		cuts := randomCuts(r, src.Data, seed%2 == 0)
		dir := t.TempDir()
		c := openCache(t, dir, nil)
		b, err := c.Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Fill(t.Context(), []*Blob{b}, nil); err != nil {
			t.Fatal(err)
		}
		path := c.at(b.s.fileName())
		l := layoutAt(t, path)
		var gone []int64
		stays := map[int64]bool{}
		for k := range cuts.Len() {
			if r.IntN(2) == 0 {
				gone = append(gone, k)
			} else {
				stays[k] = true
			}
		}
		cuts.matches()
		age(t, path, gone)
		if _, err := c.Prune(directory.PruneOptions{OlderThan: 10 * time.Minute, To: -1}); err != nil {
			t.Fatal(err)
		}
		if len(stays) == 0 {
			continue
		}
		var there blobfile.Disk
		for k := range cuts.Len() {
			if stays[k] {
				there.Add(l, k)
			}
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, most := blobfile.DiskBytes(f), there.Bytes+directory.Blocks(l.FileSize()-l.Word(0))+blobfile.BlockSize; got > most {
			t.Errorf("seed %d: the file takes %d bytes, want at most %d", seed, got, most)
		}
		for k, w := range l.Words(f, 0, l.Chunks()) {
			if (w != 0) != stays[int64(k)] {
				t.Errorf("seed %d: cut %d is there: %v", seed, k, w != 0)
			}
		}
		f.Close()
		before := b.Stats()
		for k := range stays {
			off, end := cuts.Bounds(k)
			checkRead(t, b, src.FakeBlob, off, end-off)
		}
		if after := b.Stats(); after.Requests != before.Requests || after.Bad != 0 {
			t.Errorf("seed %d: what stayed was not right: %+v, then %+v", seed, before, after)
		}
		if m := cuts.matches(); len(m) != 0 {
			t.Errorf("seed %d: what stayed was matched again: %v", seed, m)
		}
		next := openCache(t, dir, nil)
		again, err := next.Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		for k := range cuts.Len() {
			off, end := cuts.Bounds(k)
			checkRead(t, again, src.FakeBlob, off, end-off)
		}
		if after := again.Stats(); after.Bad != 0 || !again.Complete() {
			t.Errorf("seed %d: in the next process: %+v", seed, after)
		}
	}
}

// Damage at any place of a file is found, or does not matter: each read gives the right
// bytes, in the process that had read them, in one that had not, and after others have
// made room by what the file says.
func TestCutsDamaged(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60_000, 630)}}
	newCuts := func() *testCuts {
		return cutsOf(src.Data, [2]int64{10, 5_000}, [2]int64{4_999, 5_001}, [2]int64{5_000, 9_000}, [2]int64{9_000, 9_001}, [2]int64{20_000, 40_000}, [2]int64{39_999, 60_000})
	}
	proto := openCache(t, t.TempDir(), nil)
	b, err := proto.Blob(src, newCuts())
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Fill(t.Context(), []*Blob{b}, nil); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(proto.at(b.s.fileName()))
	if err != nil {
		t.Fatal(err)
	}
	places := []int64{0, 10, 4_998, 4_999, 5_000, 5_001, 8_999, 9_000, 9_001, 19_999, 20_000, 30_000, 39_998, 39_999, 40_000, 59_999, 60_001}
	for off := b.s.Word(0); off < int64(len(good)); off++ {
		places = append(places, off)
	}
	for _, off := range places {
		for _, bit := range []byte{1, 0x80} {
			bad := append([]byte(nil), good...)
			bad[off] ^= bit
			checkDamaged(t, src, newCuts, good, bad, fmt.Sprintf("byte %d", off))
		}
	}
	for _, n := range []int{0, 1, 63, 64, 5_000, 60_000, len(good) - 65, len(good) - 64, len(good) - 1} {
		checkDamaged(t, src, newCuts, good, good[:n], fmt.Sprintf("cut to %d bytes", n))
		checkDamaged(t, src, newCuts, good, append(make([]byte, n), good...), fmt.Sprintf("%d bytes before it", n))
	}
}

// checkDamaged has a process read a blob from a good file, which then becomes a bad one.
func checkDamaged(t *testing.T, src plainBlob, newCuts func() *testCuts, good, bad []byte, what string) {
	t.Helper()
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	cuts := newCuts()
	path := c.at(c.KeyName(directory.Blobs, src.Digest(), Key(cuts)))
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	was, err := c.Blob(src, cuts)
	if err != nil {
		t.Fatal(err)
	}
	read := func(b *Blob) {
		t.Helper()
		for k := range cuts.Len() {
			off, end := cuts.Bounds(k)
			checkRead(t, b, src.FakeBlob, off, end-off)
		}
	}
	read(was)
	if n := was.Stats().Requests; n > 0 {
		t.Fatalf("%s: a good file is not read", what)
	}
	cachetest.Damage(t, path, func(f *os.File) error {
		if err := f.Truncate(int64(len(bad))); err != nil {
			return err
		}
		_, err := f.WriteAt(bad, 0)
		return err
	})
	read(was)
	next := openCache(t, dir, nil)
	b, err := next.Blob(src, newCuts())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Prune(directory.PruneOptions{To: 60_000}); err != nil {
		t.Fatal(err)
	}
	read(b)
	read(was)
	last, err := openCache(t, dir, nil).Blob(src, newCuts())
	if err != nil {
		t.Fatal(err)
	}
	read(last)
	if t.Failed() {
		t.Fatalf("with %s", what)
	}
	was.s.c.Shut()
}

// Readers go on while what they read is removed, piece by piece, and while others read the
// same blob by other cuts.
func TestCutsEvictedWhileRead(t *testing.T) {
	t.Parallel()
	src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2<<20, 640)}}
	dir := t.TempDir()
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var wg sync.WaitGroup
	var paths []string
	for i := range uint64(3) {
		cuts := randomCuts(rand.New(rand.NewPCG(i, 13)), src.Data, false)
		for range 2 {
			c := openCache(t, dir, &testOptions{Budget: 3 << 20, Warnf: t.Errorf})
			b, err := c.Blob(src, cuts)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, c.at(b.s.fileName()))
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := randomRead(b, src); err != nil {
						t.Error(err)
						return
					}
				}
				// Some may be found wrong and come again: those that were written to a
				// block while another process removed what it had of others
				// (docs/cache-format.md, "Blob files").
			})
		}
	}
	for ctx.Err() == nil {
		for _, path := range paths {
			if err := cachetest.Evict(path, []int64{rand.Int64N(60), rand.Int64N(60), rand.Int64N(60)}, nil); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
	}
	wg.Wait()
}

// A file that could not be written to its end gives back what it took, but nothing that a
// neighbour may have.
func TestCutsForgotten(t *testing.T) {
	t.Parallel()
	src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60_000, 650)}}
	cuts := cutsOf(src.Data, [2]int64{0, 30_001}, [2]int64{30_000, 60_000})
	c := openCache(t, t.TempDir(), nil)
	b, err := c.Blob(src, cuts)
	if err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, src.FakeBlob, 0, 30_000)
	file := b.s.file.Load()
	if _, err := file.f.WriteAt(src.Data[30_000:], 30_000); err != nil {
		t.Fatal(err)
	}
	before := blobfile.DiskBytes(file.f)
	file.forget(1, 2)
	if n := before - blobfile.DiskBytes(file.f); n != 7*4096 { // 32768 to 61440
		t.Errorf("gave back %d bytes", n)
	}
	cuts.matches()
	checkRead(t, b, src.FakeBlob, 0, 60_000)
	if s := b.Stats(); s.Bad != 0 || s.Requests != 2 {
		t.Errorf("Stats() = %+v", s)
	}
}
