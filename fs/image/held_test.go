package image_test

import (
	"testing"
)

// TestReadHeldAt reads what is in memory, and what is not.
func TestReadHeldAt(t *testing.T) {
	small, big := random(1, 50_000), random(2, 300_000)
	o := newOpened(t, gzipLayer(t, "small", small, "big", big))
	tree, cache := o.with(nil)
	held := func(name string, off int64, n int, want bool) {
		t.Helper()
		content := map[string]string{"small": small, "big": big}[name]
		before := tree.Stats()
		p := make([]byte, n)
		if got := lookup(t, tree, name).ReadHeldAt(p, off); got != want {
			t.Errorf("%s, %d bytes at %d: %v, want %v", name, n, off, got, want)
		}
		if want && string(p) != content[off:off+int64(n)] {
			t.Errorf("%s, %d bytes at %d: wrong bytes", name, n, off)
		}
		after := tree.Stats()
		reads, asked := int64(0), int64(0)
		if want {
			reads, asked = 1, int64(n)
		}
		if after.Reads-before.Reads != reads || after.Asked-before.Asked != asked || after.Errors != 0 {
			t.Errorf("%s: %d reads of %d bytes were counted, want %d of %d", name, after.Reads-before.Reads, after.Asked-before.Asked, reads, asked)
		}
	}
	held("small", 0, 4096, false)
	held("big", 0, 4096, false)
	pass(t, lookup(t, tree, "small"), small)
	pass(t, lookup(t, tree, "big"), big)
	held("small", 1000, 4096, true)
	held("big", 100_000, 131_072, true)
	for _, off := range []int64{-1, int64(len(small)) - 10, int64(len(small)), 1 << 40} {
		held("small", off, 11, false)
	}
	held("small", 0, 0, false)
	held("/", 0, 10, false)

	store(t, cache, big)
	if b, ok := tree.KeptFile(lookup(t, tree, "big"), false); !ok {
		t.Fatal("the content is not there")
	} else {
		b.Close()
	}
	read := tree.Stats().Contents.ReadBytes
	held("big", 5, 131_072, true)
	if got := tree.Stats().Contents.ReadBytes - read; got != 131_072 {
		t.Errorf("%d bytes were read from the content", got)
	}
}
