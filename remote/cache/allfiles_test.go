package cache

import (
	"bytes"
	"crypto/sha256"
	"path/filepath"
	"testing"
)

// A testCacheF is all of a cache directory, as package cache puts it together.
type testCacheF struct {
	*directory
	*blobsPartF
	*filesPartF
	*metaPartF
}

type (
	blobsPartF = blobCache
	filesPartF = fileCache
	metaPartF  = metaCache
)

type testOptionsF struct {
	MaxRequest int64
	Budget     int64
	Warnf      func(format string, args ...any)
}

func openTestF(dir string, opts *testOptionsF) (*testCacheF, error) {
	if opts == nil {
		opts = &testOptionsF{}
	}
	d, err := openDirectory(dir, directoryOptions{Budget: opts.Budget, Warnf: opts.Warnf, BlobsOf: blobsOf})
	if err != nil {
		return nil, err
	}
	m := newMetaCache(d)
	return &testCacheF{d, newBlobCache(d, m, opts.MaxRequest), newFileCache(d), m}, nil
}

func (c *testCacheF) Close() error {
	c.directory.shut()
	c.blobsPartF.shut()
	c.directory.Wait()
	c.blobsPartF.closeFiles()
	return c.directory.close()
}

type testStatsF struct{ Requests, Fetched, HitBytes, Recorded, ContentsStored, ContentBytes, BadFetched, BadStored, Temporary, MetaRequests, MetaFetched int64 }

func (c *testCacheF) Stats() testStatsF {
	b, f, m := c.blobsPartF.counts(), c.filesPartF.counts(), c.metaPartF.counts()
	return testStatsF{b.Requests, b.Fetched, b.HitBytes, b.Recorded, f.Stored, f.Bytes, b.BadFetched, c.directory.BadStored(), c.directory.TemporaryBytes(), m.Requests, m.Fetched}
}

// at returns the path of a name in the directory.
func (c *testCacheF) at(name string) string { return filepath.Join(c.directory.Path(), name) }

func openCacheF(t testing.TB, dir string, opts *testOptionsF) *testCacheF {
	t.Helper()
	c, err := openTestF(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// limitedF opens a cache whose budget leaves room bytes.
func limitedF(t testing.TB, dir string, room int64) *testCacheF {
	t.Helper()
	c := openCacheF(t, dir, &testOptionsF{Budget: 1 << 30, Warnf: t.Errorf})
	limit(t, c.directory, room)
	return c
}

func cachedF(t testing.TB, c *testCacheF, src *fakeBlob) *Blob {
	t.Helper()
	b, err := c.Blob(src, chunksOfF(src.data, testChunk))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkReadF reads n bytes at off, all of which must exist.
func checkReadF(t testing.TB, b *Blob, src *fakeBlob, off, n int64) {
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

func chunksOfF(data []byte, size int64) Chunks {
	c := Chunks{Size: size}
	for len(data) > 0 {
		n := min(size, int64(len(data)))
		sum := sha256.Sum256(data[:n])
		c.Sums = append(c.Sums, sum[:]...)
		data = data[n:]
	}
	return c
}
