package blobs

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// Whatever happens to a file, readers get the right bytes, and the next
// reader gets them from disk.
func TestDamagedFile(t *testing.T) {
	const c = cachetest.TestChunk
	const size = 5*c + 17
	l := blobfile.Layout{Size: size, Chunk: c}
	write := func(off int64, p []byte) func(*os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteAt(p, off)
			return err
		}
	}
	tests := []struct {
		name    string
		damage  func(f *os.File) error
		fetched int64 // bytes that must come from the source again
	}{
		{"nothing", func(*os.File) error { return nil }, 0},
		{"bit flipped", write(2*c+1, []byte{0}), c},
		{"last byte", write(size-1, []byte{0}), 17},
		{"hole", func(f *os.File) error { return blobfile.Punch(f, 3*c, c) }, c},
		{"padding", write(size, []byte{1}), 0},
		{"word lost", write(l.Word(1), make([]byte, blobfile.WordSize)), c},
		{"word of the future", write(l.Word(1), []byte{255, 255, 255, 255}), 0},
		{"footer lost", write(l.Footer(), make([]byte, blobfile.FooterSize)), size},
		{"footer of other chunks", write(l.Footer(), blobfile.Layout{Size: size, Chunk: 2 * c}.EncodeFooter(2)), size},
		{"footer of another blob", write(l.Footer(), blobfile.Layout{Size: size - 1, Chunk: c}.EncodeFooter(2)), size},
		{"footer of no sense", write(l.Footer()+12, bytes.Repeat([]byte{255}, 12)), size},
		{"cut in the data", func(f *os.File) error { return f.Truncate(2*c + 5) }, size},
		{"cut in the footer", func(f *os.File) error { return f.Truncate(l.FileSize() - 1) }, size},
		{"grown", func(f *os.File) error { return f.Truncate(l.FileSize() + 1) }, size},
		{"empty", func(f *os.File) error { return f.Truncate(0) }, size},
		{"retired", write(l.Footer()+blobfile.EpochOff, make([]byte, 8)), size},
		{"another epoch", write(l.Footer()+blobfile.EpochOff, []byte{1}), 0},
		{"removed", func(f *os.File) error { return os.Remove(f.Name()) }, size},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(size, 10)}
			src.Data[2*c+1], src.Data[size-1] = 7, 7
			dir := t.TempDir()
			checkRead(t, cached(t, openCache(t, dir, nil), src), src, 0, size)
			cachetest.Damage(t, cachetest.BlobPath(dir, src), tt.damage)

			again := openCache(t, dir, nil)
			checkRead(t, cached(t, again, src), src, 0, size)
			if st := again.Stats(); st.Fetched != tt.fetched || st.HitBytes != size-tt.fetched {
				t.Errorf("fetched %d bytes again and %d from disk, want %d and %d", st.Fetched, st.HitBytes, tt.fetched, size-tt.fetched)
			}
			third := openCache(t, dir, nil)
			checkRead(t, cached(t, third, src), src, 0, size)
			if got := third.Stats().Fetched; got != 0 {
				t.Errorf("fetched %d bytes after the repair", got)
			}
		})
	}
}

// The same while the file is open and its chunks are known to be sound.
func TestFileGoesAway(t *testing.T) {
	const c = cachetest.TestChunk
	tests := []struct {
		name string
		do   func(path string) error
	}{
		{"chunks removed", func(path string) error { return cachetest.Evict(path, []int64{0, 2, 3}, nil) }},
		{"remover killed before the holes", func(path string) error {
			return cachetest.Evict(path, []int64{0, 2}, func(step int) bool { return step == 3 })
		}},
		{"remover killed among the holes", func(path string) error {
			return cachetest.Evict(path, []int64{0, 2}, func(step int) bool { return step == 4 })
		}},
		{"retired", func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			blobfile.Retire(f)
			return os.Remove(path)
		}},
		{"unlinked", os.Remove},
		{"cut", func(path string) error { return os.Truncate(path, 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*c, 11)}
			dir := t.TempDir()
			b := cached(t, openCache(t, dir, nil), src)
			checkRead(t, b, src, 0, 4*c)
			checkRead(t, b, src, 0, 4*c)
			if err := tt.do(cachetest.BlobPath(dir, src)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				checkRead(t, b, src, 0, 4*c)
				checkRead(t, b, src, 2*c-1, c)
			}
			asked := len(src.Asked())
			checkRead(t, b, src, 0, 4*c)
			if got := len(src.Asked()); got != asked {
				t.Errorf("%d more requests once all is back", got-asked)
			}
		})
	}
}

// Two Caches read through one directory while chunks, and now and then the
// whole file, are taken away under them.
func TestRemovalWhileReading(t *testing.T) {
	testenv.Slow(t)
	const c = cachetest.TestChunk
	const n = 16
	data := cachetest.RandomBytes(n*c-1, 12)
	dir := t.TempDir()
	path := cachetest.BlobPath(dir, &cachetest.FakeBlob{Data: data})
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		src := &cachetest.FakeBlob{T: t, Data: data}
		b := cached(t, openCache(t, dir, nil), src)
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					off := rand.Int64N(src.Size() - 1)
					checkReadNoFatal(t, b, src, off, min(1+rand.Int64N(3*c), src.Size()-off))
				}
			})
		}
	}
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			chunks := []int64{rand.Int64N(n), rand.Int64N(n)}
			var stop func(int) bool
			if i%3 == 0 {
				last := rand.IntN(5)
				stop = func(step int) bool { return step > last }
			}
			cachetest.Evict(path, chunks, stop)
			if i%50 == 49 {
				os.Remove(path)
			}
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		}
	})
	wg.Wait()
}

func TestStateWord(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 13)}
	dir := t.TempDir()
	checkRead(t, cached(t, openCache(t, dir, nil), src), src, 0, 2*cachetest.TestChunk)
	l := blobfile.Layout{Size: src.Size(), Chunk: cachetest.TestChunk}
	old, recent := blobfile.Stamp()-2*noteAfter, blobfile.Stamp()-noteAfter/2
	cachetest.Damage(t, cachetest.BlobPath(dir, src), func(file *os.File) error {
		f := &blobFile{Layout: l, f: file}
		if err := f.setWord(0, old); err != nil {
			return err
		}
		return f.setWord(1, recent)
	})
	checkRead(t, cached(t, openCache(t, dir, nil), src), src, 0, 2*cachetest.TestChunk)
	cachetest.Damage(t, cachetest.BlobPath(dir, src), func(file *os.File) error {
		f := &blobFile{Layout: l, f: file}
		if got := f.present(0, 2); got[0] < recent || got[1] != recent {
			t.Errorf("words %v after a use of chunks last used %d and %d", got, old, recent)
		}
		return nil
	})
}

// A file that is replaced while it is being opened is not the blob's.
func TestOpenReplaced(t *testing.T) {
	dir := t.TempDir()
	d, path := cachetest.FilesAt(t, dir), dir+"/blob"
	l := blobfile.Layout{Size: 10, Chunk: cachetest.TestChunk}
	old, err := openBlobFile(d, "blob", l, nil, blobMake)
	if err != nil {
		t.Fatal(err)
	}
	defer old.f.Close()
	if err := directory.Flock(old.f, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	opened := make(chan *blobFile, 1)
	go func() {
		b, err := openBlobFile(d, "blob", l, nil, blobMake)
		if err != nil {
			t.Error(err)
		}
		opened <- b
	}()
	time.Sleep(20 * time.Millisecond) // to let it wait for the lock
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := directory.Flock(old.f, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if b := <-opened; b != nil {
		defer b.f.Close()
		if !cachetest.IsAt(b.f, path) {
			t.Error("the file opened is not at the path")
		}
	}
}

// One chunk uses the disk of one chunk.
func TestFileIsSparse(t *testing.T) {
	const c = 256 << 10
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(8*c, 14)}
	dir := t.TempDir()
	b, err := openCache(t, dir, nil).Blob(src, cutsOfSize(src.Data, c))
	if err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, src, 5*c, 1)
	var st unix.Stat_t
	if err := unix.Stat(cachetest.BlobPath(dir, src), &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; st.Size < 8*c || used < c || used > 2*c {
		t.Errorf("file of %d bytes uses %d with one chunk of %d in it", st.Size, used, c)
	}
}
