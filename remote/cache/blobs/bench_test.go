package blobs

import (
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

func BenchmarkHit(b *testing.B) {
	src := hammerBlob(0)
	src.Data = cachetest.RandomBytes(16<<20, 60)
	blob, err := openCache(b, b.TempDir(), nil).Blob(src, cutsOfSize(src.Data, usualChunk))
	if err != nil {
		b.Fatal(err)
	}
	checkRead(b, blob, src.FakeBlob, 0, src.Size())
	for _, bb := range []struct {
		name string
		size int
	}{{"4KiB", 4 << 10}, {"128KiB", 128 << 10}, {"256KiB", 256 << 10}} {
		b.Run(bb.name, func(b *testing.B) {
			p := make([]byte, bb.size)
			b.SetBytes(int64(bb.size))
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if _, err := blob.ReadAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
				off = (off + int64(bb.size)) % src.Size()
			}
		})
	}
}

// What a process pays for a chunk the first time.
func BenchmarkFirst(b *testing.B) {
	src := hammerBlob(0)
	src.Data = cachetest.RandomBytes(16<<20, 61)
	chunks := chunksOf(src.Data, usualChunk)
	for _, bb := range []struct {
		name   string
		onDisk bool
		size   int
	}{{"disk/256KiB", true, 256 << 10}, {"source/256KiB", false, 256 << 10}, {"source/4MiB", false, 4 << 20}} {
		b.Run(bb.name, func(b *testing.B) {
			p := make([]byte, bb.size)
			b.SetBytes(int64(bb.size))
			b.ReportAllocs()
			off := src.Size()
			dir := b.TempDir()
			var requests int64
			var blob *Blob
			var c *testCache
			for b.Loop() {
				if off == src.Size() {
					b.StopTimer()
					if c != nil {
						requests += c.Stats().Requests
						c.Close()
					}
					off = 0
					if !bb.onDisk {
						dir = b.TempDir()
					}
					c, blob = reopen(b, dir, src, chunks, bb.onDisk)
					b.StartTimer()
				}
				if _, err := blob.ReadAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
				off += int64(bb.size)
			}
			b.ReportMetric(float64(requests+c.Stats().Requests)/float64(b.N), "requests/op")
			c.Close()
		})
	}
}

// reopen opens a cache that has the blob, or has not.
func reopen(b *testing.B, dir string, src plainBlob, chunks Chunks, full bool) (*testCache, *Blob) {
	c, err := openTest(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	if full {
		if _, ok := c.Stored(src.Digest(), src.Size()); !ok {
			r, err := c.Record(src)
			if err != nil {
				b.Fatal(err)
			}
			r.Write(src.Data)
			r.Commit(chunks)
		}
	}
	blob, err := c.Blob(src, chunks)
	if err != nil {
		b.Fatal(err)
	}
	return c, blob
}

func BenchmarkRecord(b *testing.B) {
	src := hammerBlob(0)
	src.Data = cachetest.RandomBytes(16<<20, 62)
	chunks := chunksOf(src.Data, usualChunk)
	c := openCache(b, b.TempDir(), nil)
	b.SetBytes(src.Size())
	for b.Loop() {
		r, err := c.Record(src)
		if err != nil {
			b.Fatal(err)
		}
		for p := src.Data; len(p) > 0; p = p[64<<10:] {
			r.Write(p[:64<<10])
		}
		if err := r.Commit(chunks); err != nil || !r.Recorded() {
			b.Fatalf("Commit() = %v, Recorded() = %v", err, r.Recorded())
		}
	}
}

// What the budget costs a process that stores chunks: 64 MiB of blobs, over
// and over, beside 300 blobs that are there already.
func BenchmarkStore(b *testing.B) {
	data := cachetest.RandomBytes(usualChunk, 63)
	l := blobfile.Layout{Size: 16 << 20, Chunk: usualChunk}
	for _, bb := range []struct {
		name   string
		budget int64
	}{{"none", 0}, {"roomy", 10 << 30}, {"full", 48 << 20}} {
		b.Run(bb.name, func(b *testing.B) {
			dir := b.TempDir()
			c := openCache(b, dir, &testOptions{Budget: bb.budget, Warnf: b.Errorf})
			for i := range 300 {
				f, err := openBlobFile(c.Files(), c.Name(directory.Blobs, digest.FromString(strconv.Itoa(i))), l, nil, blobMake)
				if err != nil {
					b.Fatal(err)
				}
				f.f.Close()
			}
			b.SetBytes(usualChunk)
			var f *blobFile
			n, refused := int64(0), 0
			for b.Loop() {
				k := n % l.Chunks()
				if f == nil || k == 0 || !f.current() {
					blob := digest.FromString("blob " + strconv.FormatInt(n/l.Chunks()%4, 10))
					if f != nil {
						f.f.Close()
					}
					var err error
					if f, err = openBlobFile(c.Files(), c.Name(directory.Blobs, blob), l, nil, blobMake); err != nil {
						b.Fatal(err)
					}
				}
				if !c.Put(usualChunk, directory.Rule{Often: true}, func() error { return f.writeRun(k, k+1, data) }) {
					refused++
				}
				n++
			}
			f.f.Close()
			if refused > 0 {
				b.Errorf("%d of %d chunks refused", refused, n)
			}
		})
	}
}

// What it takes to look at a directory of 2,000 files, and of 10 GiB in chunks.
func BenchmarkWalk(b *testing.B) {
	dir := b.TempDir()
	c := openCache(b, dir, nil)
	for i := range 1000 {
		d := digest.FromString(strconv.Itoa(i))
		c.KeepMeta(d, []byte("{}"))
		f, err := openBlobFile(c.Files(), c.Name(directory.Blobs, d), blobfile.Layout{Size: 10 << 20, Chunk: usualChunk}, nil, blobMake)
		if err != nil {
			b.Fatal(err)
		}
		for k := range f.Layout.Chunks() {
			if err := f.setWord(k, blobfile.Stamp()); err != nil {
				b.Fatal(err)
			}
		}
		f.f.Close()
	}
	b.Run("usage", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Usage(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("words", func(b *testing.B) {
		for b.Loop() {
			inv, err := directory.Walk(c.Files())
			if err != nil {
				b.Fatal(err)
			}
			(&directory.Eviction{Inv: inv}).Chunks()
		}
	})
}
