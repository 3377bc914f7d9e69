package cache

import (
	"bytes"
	"crypto/sha256"
	"path/filepath"
	"testing"
)

// A testCache is all of a cache directory, as package cache puts it together.
type testCache struct {
	*directory
	*blobsPartB
	*filesPartB
	*metaPartB
}

type (
	blobsPartB = blobCache
	filesPartB = fileCache
	metaPartB  = metaCache
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
	d, err := openDirectory(dir, directoryOptions{Budget: opts.Budget, Warnf: opts.Warnf, BlobsOf: blobsOf})
	if err != nil {
		return nil, err
	}
	m := newMetaCache(d)
	return &testCache{d, newBlobCache(d, m, opts.MaxRequest), newFileCache(d), m}, nil
}

func (c *testCache) Close() error {
	c.directory.shut()
	c.blobsPartB.shut()
	c.directory.Wait()
	c.blobsPartB.closeFiles()
	return c.directory.close()
}

type testStats struct{ Requests, Fetched, HitBytes, Recorded, ContentsStored, ContentBytes, BadFetched, BadStored, Temporary, MetaRequests, MetaFetched int64 }

func (c *testCache) Stats() testStats {
	b, f, m := c.blobsPartB.counts(), c.filesPartB.counts(), c.metaPartB.counts()
	return testStats{b.Requests, b.Fetched, b.HitBytes, b.Recorded, f.Stored, f.Bytes, b.BadFetched, c.directory.BadStored(), c.directory.TemporaryBytes(), m.Requests, m.Fetched}
}

// at returns the path of a name in the directory.
func (c *testCache) at(name string) string { return filepath.Join(c.directory.Path(), name) }

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
	limit(t, c.directory, room)
	return c
}

func cached(t testing.TB, c *testCache, src *fakeBlob) *Blob {
	t.Helper()
	b, err := c.Blob(src, chunksOf(src.data, testChunk))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkRead reads n bytes at off, all of which must exist.
func checkRead(t testing.TB, b *Blob, src *fakeBlob, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	got, err := b.ReadAt(t.Context(), p, off)
	if err != nil || int64(got) != n {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
	}
	if !bytes.Equal(p, src.data[off:off+n]) {
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
