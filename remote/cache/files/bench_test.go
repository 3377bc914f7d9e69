package files

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// What it takes to open a content: the first time, when it is checked, and
// when it is known; and to store one.
func BenchmarkContent(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 16 << 20} {
		data := cachetest.RandomBytes(size, 600)
		d, n := digest.FromBytes(data), int64(size)
		name := fmt.Sprintf("%dKiB", size>>10)
		c := openCache(b, b.TempDir(), nil)
		storeContent(b, c, data).Close()
		for _, first := range []bool{true, false} {
			what := "known"
			if first {
				what = "first"
			}
			b.Run(what+"/"+name, func(b *testing.B) {
				b.SetBytes(n)
				b.ReportAllocs()
				for b.Loop() {
					if first {
						c.known.forget(d)
					}
					x, err := c.Open(b.Context(), d, n)
					if err != nil {
						b.Fatal(err)
					}
					x.Close()
				}
			})
		}
		b.Run("store/"+name, func(b *testing.B) {
			b.SetBytes(n)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if _, err := c.Prune(directory.PruneOptions{All: true}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				x, err := c.Store(b.Context(), d, n, bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				x.Close()
			}
		})
	}
}
