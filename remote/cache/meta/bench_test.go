package meta

import (
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What each command takes to open a cache that is there, and to look for a
// manifest in it.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	c := openCache(b, dir, nil)
	for i := range 100 {
		c.KeepMeta(digest.FromString(strconv.Itoa(i)), []byte("{}"))
	}
	d := digest.FromString("{}")
	c.KeepMeta(d, []byte("{}"))
	b.Run("cache", func(b *testing.B) {
		for b.Loop() {
			c, err := openTest(dir, nil)
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	b.Run("manifest", func(b *testing.B) {
		for b.Loop() {
			if _, ok := c.KeptMeta(d); !ok {
				b.Fatal("it is not there")
			}
		}
	})
	b.Run("nothing", func(b *testing.B) {
		for b.Loop() {
			if c.Mark(d, "").Verification != VerifiedNot {
				b.Fatal("it has a mark")
			}
		}
	})
}
