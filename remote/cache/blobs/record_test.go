package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

func TestRecord(t *testing.T) {
	const c = cachetest.TestChunk
	for _, size := range []int{0, 1, c - 1, c, c + 1, 3 * c} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(size, 20)}
			dir := t.TempDir()
			cache := openCache(t, dir, nil)
			record(t, cache, src)
			cachetest.CheckTmp(t, dir)
			b := cached(t, cache, src)
			compareReadAt(t, b, src.Data, size+1, 0)
			checkRead(t, b, src, 0, int64(size))
			if st := cache.Stats(); st.Requests != 0 || st.Recorded != int64(size) {
				t.Errorf("Stats() = %+v after recording %d bytes", st, size)
			}
			stored, ok := cache.Stored(src.Digest(), int64(size))
			if !ok {
				t.Fatal("not stored")
			}
			defer stored.Close()
			got, err := io.ReadAll(io.NewSectionReader(readerAt{t.Context(), stored}, 0, stored.Size()))
			if err != nil || !bytes.Equal(got, src.Data) {
				t.Errorf("stored blob reads as %d bytes, %v", len(got), err)
			}
		})
	}
}

// record makes a recording of src in odd pieces.
func record(t *testing.T, c *testCache, src *cachetest.FakeBlob) {
	t.Helper()
	r, err := c.Record(src)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Abort()
	for p := src.Data; len(p) > 0; {
		n := min(len(p), 1000)
		if _, err := r.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := r.Commit(chunksOf(src.Data, cachetest.TestChunk)); err != nil || !r.Recorded() {
		t.Fatalf("Commit() = %v, Recorded() = %v", err, r.Recorded())
	}
}

// A recording replaces a file in use.
func TestRecordWhileReading(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 21)}
	dir := t.TempDir()
	one, two := openCache(t, dir, nil), openCache(t, dir, nil)
	b := cached(t, one, src)
	checkRead(t, b, src, 0, 1)
	checkRead(t, b, src, 0, 1)
	record(t, two, src)
	record(t, two, src)
	checkRead(t, b, src, 0, src.Size())
	if got := len(src.Asked()); got != 1 {
		t.Errorf("%d requests, want only the one before the recording", got)
	}
}

func TestRecordRefused(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 22)}
	chunks := chunksOf(src.Data, cachetest.TestChunk)
	tests := []struct {
		name string
		do   func(r *Recording) error
		want error // nil means any
	}{
		{"too few bytes", func(r *Recording) error {
			r.Write(src.Data[1:])
			return r.Commit(chunks)
		}, io.ErrUnexpectedEOF},
		{"too many bytes", func(r *Recording) error {
			r.Write(src.Data)
			_, err := r.Write([]byte{0})
			return err
		}, remote.ErrDigest},
		{"wrong chunks", func(r *Recording) error {
			r.Write(src.Data)
			return r.Commit(Chunks{Size: cachetest.TestChunk, Sums: chunks.Sums[:32]})
		}, nil},
		{"commit after abort", func(r *Recording) error {
			r.Write(src.Data[1:])
			r.Abort()
			return r.Commit(chunks)
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, nil)
			r, err := c.Record(src)
			if err != nil {
				t.Fatal(err)
			}
			if err = tt.do(r); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			r.Abort()
			if r.Recorded() {
				t.Error("Recorded() = true")
			}
			cachetest.CheckTmp(t, dir)
			if _, ok := c.Stored(src.Digest(), src.Size()); ok {
				t.Error("stored all the same")
			}
		})
	}
}

func TestStoredNeedsAll(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 23)}
	c := openCache(t, t.TempDir(), nil)
	stored := func() bool {
		b, ok := c.Stored(src.Digest(), src.Size())
		if ok {
			b.Close()
		}
		return ok
	}
	if stored() {
		t.Error("stored before any read")
	}
	b := cached(t, c, src)
	checkRead(t, b, src, 0, 2*cachetest.TestChunk)
	if stored() {
		t.Error("stored with a chunk missing")
	}
	checkRead(t, b, src, 0, 3*cachetest.TestChunk)
	if !stored() {
		t.Error("not stored with all chunks there")
	}
	if _, ok := c.Stored(src.Digest(), src.Size()-1); ok {
		t.Error("stored with another size")
	}
}

func TestSweep(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 24)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	alive, err := c.Record(src)
	if err != nil {
		t.Fatal(err)
	}
	alive.Write(src.Data)
	// What a killed process leaves: a file without a lock.
	if err := os.WriteFile(c.at(directory.Tmp+"/1"), src.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	openCache(t, dir, nil)
	if _, err := os.Stat(c.at(directory.Tmp + "/1")); err == nil {
		t.Error("a dead process's file was left")
	}
	if err := alive.Commit(chunksOf(src.Data, cachetest.TestChunk)); err != nil || !alive.Recorded() {
		t.Errorf("Commit() = %v, Recorded() = %v: a live process's file was removed", err, alive.Recorded())
	}
	cachetest.CheckTmp(t, dir)
}

// A file that has just been made is not swept away once its maker has it.
func TestSweepAndCreate(t *testing.T) {
	dir := cachetest.FilesAt(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				directory.Sweep(dir)
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				f, err := directory.CreateOwned(dir)
				if err != nil {
					t.Error(err)
					return
				}
				if !f.IsThere() {
					t.Error("swept away")
				}
				f.Close()
			}
		})
	}
	wg.Wait()
}
