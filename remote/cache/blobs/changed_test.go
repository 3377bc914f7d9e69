package blobs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// What changes in a blob file under a reader that has checked its chunks is
// noticed at the next read, and only what is wrong is fetched again.
func TestChunkChangesWhileOpen(t *testing.T) {
	const c = cachetest.TestChunk
	tests := []struct {
		name    string
		do      func(t *testing.T, path string)
		fetched int64
	}{
		{"a bit", func(t *testing.T, path string) { cachetest.Damage(t, path, cachetest.FlipAt(c+5)) }, c},
		{"first and last byte", func(t *testing.T, path string) {
			cachetest.Damage(t, path, cachetest.FlipAt(0))
			cachetest.Damage(t, path, cachetest.FlipAt(3*c+6))
		}, c + 7},
		{"holes with their words", func(t *testing.T, path string) {
			cachetest.Damage(t, path, func(f *os.File) error { return blobfile.Punch(f, 0, 2*c) })
		}, 2 * c},
		{"chunks that change places", func(t *testing.T, path string) {
			cachetest.Damage(t, path, func(f *os.File) error {
				p := make([]byte, 2*c)
				if _, err := f.ReadAt(p, 0); err != nil {
					return err
				}
				_, err := f.WriteAt(append(bytes.Clone(p[c:]), p[:c]...), 0)
				return err
			})
		}, 2 * c},
		{"words and bytes", func(t *testing.T, path string) {
			cachetest.Damage(t, path, func(f *os.File) error {
				_, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 5000), 2*c+100)
				return err
			})
		}, c + 7},
		{"longer", func(t *testing.T, path string) {
			cachetest.Damage(t, path, func(f *os.File) error {
				st, err := f.Stat()
				if err != nil {
					return err
				}
				return f.Truncate(st.Size() + 1)
			})
		}, 0},
		{"replaced by another file", func(t *testing.T, path string) {
			if err := cachetest.ReplaceFile(path, make([]byte, 10*c)); err != nil {
				t.Fatal(err)
			}
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*c+7, 12)}
			dir := t.TempDir()
			cache := openCache(t, dir, nil)
			b := cached(t, cache, src)
			checkRead(t, b, src, 0, src.Size())
			checkRead(t, b, src, 0, src.Size())
			before := cache.Stats().Fetched
			tt.do(t, cachetest.BlobPath(dir, src))
			// By small reads first, which do not see all of a chunk.
			for off := int64(0); off < src.Size(); off += 1000 {
				checkRead(t, b, src, off, min(100, src.Size()-off))
			}
			checkRead(t, b, src, 0, src.Size())
			if got := cache.Stats().Fetched - before; got != tt.fetched {
				t.Errorf("fetched %d bytes again, want %d", got, tt.fetched)
			}
			checkRead(t, cached(t, openCache(t, dir, nil), src), src, 0, src.Size())
		})
	}
}

// The same for work that nobody waits for.
func TestReadPresentChanges(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 13)}
	dir := t.TempDir()
	b := cached(t, openCache(t, dir, nil), src)
	checkRead(t, b, src, 0, src.Size())
	for begun := time.Now(); !cachetest.AsCuts && b.Verification() != meta.VerifiedWhole; time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatal("all of it is there, and is not checked")
		}
	}
	// From now on nobody looks at the file but who reads.
	p := make([]byte, 50)
	if _, err := b.ReadPresent(t.Context(), p, cachetest.TestChunk); err != nil {
		t.Fatal(err)
	}
	cachetest.Damage(t, cachetest.BlobPath(dir, src), cachetest.FlipAt(cachetest.TestChunk+1))
	if n, err := b.ReadPresent(t.Context(), p, cachetest.TestChunk); err == nil {
		t.Errorf("read %d bytes that have changed", n)
	}
	cachetest.Damage(t, cachetest.BlobPath(dir, src), cachetest.FlipAt(cachetest.TestChunk+1))
	if _, err := b.ReadPresent(t.Context(), p, cachetest.TestChunk); err != nil || !bytes.Equal(p, src.Data[cachetest.TestChunk:cachetest.TestChunk+50]) {
		t.Errorf("after it is right again: %v", err)
	}
}

// Readers of a file that changes all the time get the blob's bytes.
func TestChunksChangeUnderReaders(t *testing.T) {
	src := hammerBlob(14)
	src.Data = cachetest.RandomBytes(8*usualChunk, 14) // of which one has several pieces
	dir := t.TempDir()
	b, err := openCache(t, dir, nil).Blob(src, cutsOfSize(src.Data, usualChunk))
	if err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, src.FakeBlob, 0, src.Size())
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			p := make([]byte, cachetest.TestChunk+100)
			for off := int64(i); ctx.Err() == nil; off = (off + 7777) % (src.Size() - int64(len(p))) {
				if _, err := b.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, src.Data[off:off+int64(len(p))]) {
					t.Errorf("read at %d: %v, right: %v", off, err, bytes.Equal(p, src.Data[off:off+int64(len(p))]))
					return
				}
			}
		})
	}
	f, err := os.OpenFile(filepath.Join(dir, b.s.fileName()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(9); ctx.Err() == nil; off = (off + 3*sealBlock) % src.Size() {
		if err := cachetest.FlipAt(off)(f); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
