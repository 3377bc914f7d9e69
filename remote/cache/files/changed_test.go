package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// change does something to a file in place, as its owner can.
func change(t *testing.T, path string, do func(f *os.File) error) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := do(f); err != nil {
		t.Fatal(err)
	}
}

// What changes in a content that is open is never read, and then the content is
// not there any more, and can be stored again.
func TestContentChangesWhileOpen(t *testing.T) {
	const size = 3*pieceSize + 100
	data := cachetest.RandomBytes(size, 450)
	d := digest.FromBytes(data)
	tests := []struct {
		name  string
		do    func(t *testing.T, path string)
		at    int64 // where it is wrong
		right bool
	}{
		{"first byte", func(t *testing.T, path string) { change(t, path, cachetest.FlipAt(0)) }, 0, false},
		{"last byte", func(t *testing.T, path string) { change(t, path, cachetest.FlipAt(size-1)) }, size - 1, false},
		{"in the middle", func(t *testing.T, path string) { change(t, path, cachetest.FlipAt(pieceSize+7)) }, pieceSize + 7, false},
		{"cut", func(t *testing.T, path string) {
			change(t, path, func(f *os.File) error { return f.Truncate(pieceSize) })
		}, pieceSize, false},
		{"emptied", func(t *testing.T, path string) { change(t, path, func(f *os.File) error { return f.Truncate(0) }) }, 0, false},
		{"hole", func(t *testing.T, path string) {
			change(t, path, func(f *os.File) error { return blobfile.Punch(f, blobfile.BlockSize, blobfile.BlockSize) })
		}, blobfile.BlockSize, false},
		{"longer", func(t *testing.T, path string) {
			change(t, path, func(f *os.File) error { return f.Truncate(size + 1) })
		}, 0, true},
		{"replaced", func(t *testing.T, path string) {
			if err := cachetest.ReplaceFile(path, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
		}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, nil)
			stored := storeContent(t, c, data)
			opened := openContent(t, c, data)
			path := contentPath(dir, data)
			tt.do(t, path)
			for _, x := range []*Kept{stored, opened} {
				if x.Unchanged() {
					t.Error("Unchanged() is true")
				}
				for _, n := range []int64{1, blobfile.BlockSize, pieceSize} {
					off := max(0, min(tt.at, size-n))
					got := make([]byte, n)
					_, err := x.ReadAt(got, off)
					if tt.right && (err != nil || !bytes.Equal(got, data[off:off+n])) || !tt.right && !errors.Is(err, remote.ErrDigest) {
						t.Errorf("ReadAt(%d bytes from %d) = %v", n, off, err)
					}
				}
			}
			_, err := c.Open(t.Context(), d, size)
			if !errors.Is(err, fs.ErrNotExist) || cachetest.Exists(path) || c.Stats().BadStored != 1 {
				t.Errorf("Open() = %v; it is there: %v; %d found wrong", err, cachetest.Exists(path), c.Stats().BadStored)
			}
			storeContent(t, c, data)
		})
	}
}

// A time of change that is new has a content checked again, and a use that the
// Cache notes itself is none.
func TestContentUnchanged(t *testing.T) {
	data := cachetest.RandomBytes(pieceSize, 451)
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	x := storeContent(t, c, data)
	path := contentPath(dir, data)
	if !x.Unchanged() {
		t.Error("a new content has changed")
	}
	cachetest.Age(t, path, 2*touchAfter)
	if x.Unchanged() {
		t.Error("somebody has changed the times, and Unchanged() is true")
	}
	if _, err := c.OpenChecked(x.digest, pieceSize); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenChecked() of what has changed = %v", err)
	}
	y := openContent(t, c, data) // notes its use, and checks
	if !y.Unchanged() {
		t.Error("it was checked again, and has changed")
	}
	// What changed before the use was noted stays changed.
	change(t, path, cachetest.FlipAt(5))
	past := time.Now().Add(-2 * touchAfter)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	z, err := c.OpenChecked(x.digest, pieceSize)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if y.Unchanged() || z.Unchanged() {
		t.Error("a use was noted, and the change forgotten")
	}
}

// Readers of a content that changes back and forth get right bytes or an error.
func TestContentChangesUnderReaders(t *testing.T) {
	data := cachetest.RandomBytes(2*pieceSize, 452)
	d, n := digest.FromBytes(data), int64(len(data))
	c := openCache(t, t.TempDir(), nil)
	path := contentPath(c.Path(), data)
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			p := make([]byte, 3*blobfile.BlockSize)
			for off := int64(i); ctx.Err() == nil; off = (off + 7*blobfile.BlockSize) % (n - int64(len(p))) {
				x, err := c.Store(ctx, d, n, bytes.NewReader(data))
				if err != nil {
					continue
				}
				for range 50 {
					if _, err := x.ReadAt(p, off); err == nil && !bytes.Equal(p, data[off:off+int64(len(p))]) {
						t.Error("wrong bytes")
					}
				}
				x.Close()
			}
		})
	}
	for ctx.Err() == nil {
		if os.Chmod(path, 0o600) == nil {
			if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
				_ = cachetest.FlipAt(blobfile.BlockSize)(f)
				_ = cachetest.FlipAt(blobfile.BlockSize)(f)
				_, _ = f.WriteAt([]byte("x"), 5*blobfile.BlockSize)
				f.Close()
			}
		}
	}
	wg.Wait()
	x, err := c.Store(t.Context(), d, n, bytes.NewReader(data))
	if err == nil {
		defer x.Close()
		_, err = io.ReadFull(io.NewSectionReader(x, 0, n), make([]byte, n))
	}
	if errors.Is(err, remote.ErrDigest) { // found out only now
		x, err = c.Store(t.Context(), d, n, bytes.NewReader(data))
	}
	checkContent(t, x, err, data)
}
