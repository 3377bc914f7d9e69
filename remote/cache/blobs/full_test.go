package blobs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A disk that is full of what others store is left alone, after one warning.
func TestDiskFull(t *testing.T) {
	dir := cachetest.SmallDisk(t, 1<<20)
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
	c.RetryWrites = 0 // so that every write is tried
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2<<20, 40)}
	other := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(1<<20, 41)}
	b, b2 := cached(t, c, src), cached(t, c, other)
	cachetest.FillDisk(t, dir, 0)
	for range 2 {
		for off := int64(0); off < src.Size(); off += 100_000 {
			checkRead(t, b, src, off, min(100_000, src.Size()-off))
		}
		checkRead(t, b2, other, 0, other.Size())
	}
	w.Check(t, dir, "no space left on device")

	// A disk that has room again is used again.
	if err := os.Remove(filepath.Join(filepath.Dir(dir), "filler")); err != nil {
		t.Fatal(err)
	}
	small := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(10*cachetest.TestChunk, 42)}
	b = cached(t, c, small)
	c.Disk.Forget()
	checkRead(t, b, small, 0, small.Size())
	if got := cachetest.Held(c.at("."), small); got != 1<<10-1 {
		t.Errorf("chunks %b are on a disk with room again", got)
	}
}

// On a disk that is full of what is cached, some of it makes room for more,
// whatever the budget.
func TestDiskFullOfCache(t *testing.T) {
	testenv.Slow(t)
	for _, budget := range []int64{0, 1 << 40} {
		dir := cachetest.SmallDisk(t, 1<<20)
		c := openCache(t, dir, &testOptions{Budget: budget, Warnf: t.Errorf})
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3<<20, 46)}
		b := cached(t, c, src)
		for i := range 2 {
			if i > 0 { // or what goes first of this second is what was read last
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
			}
			for off := int64(0); off < src.Size(); off += 100_000 {
				n := min(100_000, src.Size()-off)
				checkRead(t, b, src, off, n)
				fetched := c.Stats().Fetched
				checkRead(t, b, src, off, n)
				// One chunk is of the read before, and as old as that.
				if more := c.Stats().Fetched - fetched; more > cachetest.TestChunk {
					t.Errorf("budget %d: %d bytes at %d were not kept", budget, more, off)
				}
			}
		}
		small := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(200<<10, 47)}
		r := startRecording(t, c, small, 100<<10)
		if !finish(t, r, small) {
			t.Errorf("budget %d: not recorded", budget)
		}
		s := c.Source(cachetest.NewFakeSource(t, "example.com/a:1", string(cachetest.RandomBytes(100<<10, 48))), nil)
		desc, err := s.Resolve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context(), desc); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.KeptMeta(desc.Digest); !ok {
			t.Errorf("budget %d: the manifest was not kept", budget)
		}
		if entries, err := os.ReadDir(filepath.Join(dir, directory.Refs)); err != nil || len(entries) != 1 {
			t.Errorf("budget %d: %d references kept, %v", budget, len(entries), err)
		}
		if err := unix.Access(cachetest.BlobPath(dir, small), unix.F_OK); err != nil {
			t.Error(err)
		}
	}
}

// A disk that is full before there is a cache has none, and one later.
func TestDiskFullAtOpen(t *testing.T) {
	dir := cachetest.SmallDisk(t, 1<<20)
	cachetest.FillDisk(t, dir, 0)
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 49)}
	b := cached(t, c, src)
	for range 2 {
		checkRead(t, b, src, 0, src.Size())
	}
	s := c.Source(cachetest.NewFakeSource(t, "example.com/a:1", "{}"), nil)
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Error(err)
	}
	w.Check(t, dir+": no space left on device")

	if err := os.Remove(filepath.Join(filepath.Dir(dir), "filler")); err != nil {
		t.Fatal(err)
	}
	c.Disk.Forget()
	// What is in memory would not be read anew.
	later := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 50)}
	checkRead(t, cached(t, c, later), later, 0, later.Size())
	if got := cachetest.Held(c.at("."), later); got != 1<<4-1 {
		t.Errorf("chunks %b are on a disk with room again", got)
	}
	if openCache(t, dir, nil); !cachetest.Exists(filepath.Join(dir, directory.VersionFile)) {
		t.Error("the next Open does not write the version")
	}
}

func TestDiskFullAtRecording(t *testing.T) {
	dir := cachetest.SmallDisk(t, 1<<20)
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2<<20, 43)}
	for range 2 {
		r, err := c.Record(src)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < len(src.Data); off += 64 << 10 {
			if n, err := r.Write(src.Data[off : off+64<<10]); n != 64<<10 || err != nil {
				t.Fatalf("Write() = %d, %v", n, err)
			}
		}
		if err := r.Commit(chunksOf(src.Data, cachetest.TestChunk)); err != nil || r.Recorded() {
			t.Errorf("Commit() = %v, Recorded() = %v", err, r.Recorded())
		}
		cachetest.CheckTmp(t, dir)
	}
	w.Check(t, dir, "no space left on device")
	checkRead(t, cached(t, c, src), src, 0, src.Size())
}

func TestDiskFullOfMetadata(t *testing.T) {
	dir := cachetest.SmallDisk(t, 256<<10)
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
	src := cachetest.NewFakeSource(t, "example.com/a:1", string(cachetest.RandomBytes(300<<10, 44)))
	s := c.Source(src, nil)
	for range 2 {
		desc, err := s.Resolve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context(), desc); err != nil {
			t.Fatal(err)
		}
	}
	cachetest.CheckTmp(t, dir)
	w.Check(t, dir, "no space left on device")
}

// A directory that stops being writable while it is in use.
func TestDirectoryRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 45)}
	for range 2 {
		checkRead(t, cached(t, c, src), src, 0, src.Size())
	}
	r, err := c.Record(src)
	if err != nil {
		t.Fatal(err)
	}
	r.Write(src.Data)
	if err := r.Commit(chunksOf(src.Data, cachetest.TestChunk)); err != nil || r.Recorded() {
		t.Errorf("Commit() = %v, Recorded() = %v", err, r.Recorded())
	}
	if _, err := c.Source(cachetest.NewFakeSource(t, "a", "{}"), nil).Fetch(t.Context(), ocispec.DescriptorEmptyJSON); err != nil {
		t.Errorf("Fetch() = %v", err)
	}
	w.Check(t, dir, "not a directory")
}

func TestRetryWrites(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	if !c.MayWrite() {
		t.Error("a new cache does not write")
	}
	c.DiskFailed(unix.ENOSPC)
	if c.MayWrite() {
		t.Error("writes again at once")
	}
	c.RetryWrites = 0
	if !c.MayWrite() {
		t.Error("does not write again later")
	}
}
