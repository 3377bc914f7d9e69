package blobs

import (
	"bytes"
	"crypto/sha256"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/remote/cache/files"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// usualChunk is the size of chunks that layer indexes have.
const usualChunk = 64 << 10

// A testCache is all of a cache directory, as package cache puts it together.
type testCache struct {
	*directory.Dir
	*blobsPart
	*filesPart
	*metaPart
}

type (
	blobsPart = Cache
	filesPart = files.Cache
	metaPart  = meta.Cache
)

type testOptions struct {
	MaxRequest int64
	Budget     int64
	Warnf      func(format string, args ...any)
}

func openTest(dir string, opts *testOptions) (*testCache, error) {
	if opts == nil {
		opts = &testOptions{}
	}
	d, err := directory.Open(dir, directory.Options{Budget: opts.Budget, Warnf: opts.Warnf, BlobsOf: meta.BlobsOf})
	if err != nil {
		return nil, err
	}
	m := meta.New(d)
	return &testCache{d, New(d, m, opts.MaxRequest), files.New(d), m}, nil
}

func (c *testCache) Close() error {
	c.Dir.Shut()
	c.blobsPart.Shut()
	c.Dir.Wait()
	c.blobsPart.CloseFiles()
	return c.Dir.Close()
}

type testStats struct{ Requests, Fetched, HitBytes, Recorded, ContentsStored, ContentBytes, BadFetched, BadStored, Temporary, MetaRequests, MetaFetched int64 }

func (c *testCache) Stats() testStats {
	b, f, m := c.blobsPart.Counts(), c.filesPart.Counts(), c.metaPart.Counts()
	return testStats{b.Requests, b.Fetched, b.HitBytes, b.Recorded, f.Stored, f.Bytes, b.BadFetched, c.Dir.BadStored(), c.Dir.TemporaryBytes(), m.Requests, m.Fetched}
}

// at returns the path of a name in the directory.
func (c *testCache) at(name string) string { return filepath.Join(c.Dir.Path(), name) }

func openCache(t testing.TB, dir string, opts *testOptions) *testCache {
	t.Helper()
	c, err := openTest(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// limited opens a cache whose budget leaves room bytes.
func limited(t testing.TB, dir string, room int64) *testCache {
	t.Helper()
	c := openCache(t, dir, &testOptions{Budget: 1 << 30, Warnf: t.Errorf})
	cachetest.Limit(t, c.Dir, room)
	return c
}

func cached(t testing.TB, c *testCache, src *cachetest.FakeBlob) *Blob {
	t.Helper()
	b, err := c.Blob(src, cutsOfSize(src.Data, cachetest.TestChunk))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkRead reads n bytes at off, all of which must exist.
func checkRead(t testing.TB, b *Blob, src *cachetest.FakeBlob, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	got, err := b.ReadAt(t.Context(), p, off)
	if err != nil || int64(got) != n {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
	}
	if !bytes.Equal(p, src.Data[off:off+n]) {
		t.Fatalf("ReadAt(%d bytes, %d) gave wrong bytes", n, off)
	}
}

func chunksOf(data []byte, size int64) Chunks {
	c := Chunks{Size: size}
	for len(data) > 0 {
		n := min(size, int64(len(data)))
		sum := sha256.Sum256(data[:n])
		c.Sums = append(c.Sums, sum[:]...)
		data = data[n:]
	}
	return c
}

// cutsOfSize are the chunks of data, as cuts if the tests are to use these.
func cutsOfSize(data []byte, size int64) Cuts {
	c := chunksOf(data, size)
	if cachetest.AsCuts {
		return cutChunks{c, int64(len(data))}
	}
	return c
}

// cutChunks are chunks of one size that look like any cuts.
type cutChunks struct {
	Chunks
	size int64
}

func (c cutChunks) Bounds(k int64) (off, end int64) {
	off, end = c.Chunks.Bounds(k)
	return off, min(end, c.size)
}
