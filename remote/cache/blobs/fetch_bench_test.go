package blobs

import (
	"fmt"
	"os"
	"testing"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// What the cache costs besides the transfer, for chunks and requests of
// several sizes.
func BenchmarkFetch(b *testing.B) {
	src := hammerBlob(0)
	src.Data = cachetest.RandomBytes(32<<20, 300)
	for _, chunk := range []int64{64 << 10, 256 << 10} {
		chunks := chunksOf(src.Data, chunk)
		for _, n := range []int64{chunk, 1 << 20, 8 << 20} {
			b.Run(fmt.Sprintf("chunk=%dK/read=%dK", chunk>>10, n>>10), func(b *testing.B) {
				p := make([]byte, n)
				b.SetBytes(n)
				b.ReportAllocs()
				off := src.Size()
				var c *testCache
				var blob *Blob
				dir := b.TempDir()
				for b.Loop() {
					if off == src.Size() {
						b.StopTimer()
						if c != nil {
							c.Close()
						}
						if err := os.RemoveAll(dir); err != nil {
							b.Fatal(err)
						}
						off = 0
						c, blob = reopen(b, dir, src, chunks, false)
						b.StartTimer()
					}
					if _, err := blob.ReadAt(b.Context(), p, off); err != nil {
						b.Fatal(err)
					}
					off += n
				}
				c.Close()
			})
		}
	}
}

// A blob on a local disk, which is checked at each reading: small reads in a
// row and large ones.
func BenchmarkLocal(b *testing.B) {
	src := hammerBlob(0)
	src.Data = cachetest.RandomBytes(32<<20, 301)
	c := openCache(b, b.TempDir(), nil)
	for _, chunk := range []int64{64 << 10, 256 << 10} {
		blob, err := c.Blob(localFake{src}, cutsOfSize(src.Data, chunk))
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range []int64{4 << 10, 128 << 10, 4 << 20} {
			b.Run(fmt.Sprintf("chunk=%dK/read=%dK", chunk>>10, n>>10), func(b *testing.B) {
				p := make([]byte, n)
				b.SetBytes(n)
				b.ReportAllocs()
				for off := int64(0); b.Loop(); off = (off + n) % src.Size() {
					if _, err := blob.ReadAt(b.Context(), p, off); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
