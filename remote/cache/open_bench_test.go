package cache

import (
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What each command takes to open a cache that is there, and to look for a
// manifest in it.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	c := openCacheM(b, dir, nil)
	for i := range 100 {
		c.keepMeta(digest.FromString(strconv.Itoa(i)), []byte("{}"))
	}
	d := digest.FromString("{}")
	c.keepMeta(d, []byte("{}"))
	b.Run("cache", func(b *testing.B) {
		for b.Loop() {
			c, err := openTestM(dir, nil)
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	b.Run("manifest", func(b *testing.B) {
		for b.Loop() {
			if _, ok := c.keptMeta(d); !ok {
				b.Fatal("it is not there")
			}
		}
	})
	b.Run("nothing", func(b *testing.B) {
		for b.Loop() {
			if c.mark(d).Verification != VerifiedNot {
				b.Fatal("it has a mark")
			}
		}
	})
}
