package spill

import (
	"bytes"
	"testing"

	"github.com/imgfs/imgfs/remote/cache"
)

// newFile makes a file in a cache directory that may take so many bytes.
func newFile(t *testing.T, size int64) *cache.TempFile {
	t.Helper()
	disk, err := cache.Open(t.TempDir(), &cache.Options{Budget: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	f, err := disk.NewTempFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestArena writes to memory that is dropped all the time, and after the file is closed.
func TestArena(t *testing.T) {
	f := newFile(t, 1<<30)
	a, err := New(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i := range 40 {
		b := a.Alloc(1000 + i*100_000)
		if len(b) < 1000+i*100_000 || bytes.ContainsFunc(b[:1000], func(r rune) bool { return r != 0 }) {
			t.Fatalf("array %d: %d bytes, not all zero", i, len(b))
		}
		for at := range b {
			b[at] = byte(i)
		}
		all = append(all, b)
		a.floor = 0
		a.Check()
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	a.floor = 0
	a.Check()
	for i, b := range all {
		if n := bytes.Count(b, []byte{byte(i)}); n != len(b) {
			t.Errorf("array %d has %d of %d bytes", i, n, len(b))
		}
	}
	if b := a.Alloc(chunk + 1); b != nil {
		t.Errorf("a closed file has %d bytes more", len(b))
	}
}

// TestArenaFull has a cache directory that may not take as much.
func TestArenaFull(t *testing.T) {
	a, err := New(newFile(t, 4*chunk), 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for a.Alloc(chunk) != nil {
		n++
	}
	if n == 0 || n > 3 {
		t.Errorf("there are %d chunks in the room of 4", n)
	}
}

// TestResident compares what an arena knows of the process before and after an array.
func TestResident(t *testing.T) {
	a, err := New(newFile(t, 0), 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	before := a.resident()
	b := a.Alloc(4 * chunk)
	for at := 0; at < len(b); at += 4096 {
		b[at] = 1
	}
	if grown := a.resident() - before; before <= 0 || grown < 3*chunk {
		t.Errorf("%d bytes before, %d more", before, grown)
	}
	a.Limit = 1
	a.Check()
	if a.floor <= 0 || a.floor > before+2*chunk {
		t.Errorf("%d bytes before, %d when it was dropped", before, a.floor)
	}
}
