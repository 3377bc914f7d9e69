package filetable

import "testing"

// TestBounded: only so many files get values, and each keeps its own.
func TestBounded(t *testing.T) {
	const files = Max + 100
	var table Table[int]
	table.Init(files)
	for ino := range uint64(files) {
		if table.get(ino+1) != nil {
			t.Fatalf("file %d has a value before it is given one", ino+1)
		}
		v := int(ino)
		got := table.make(ino+1, &v)
		if again := table.make(ino+1, new(int)); again != got || got != nil && got != &v || (got == nil) != (ino >= Max) {
			t.Fatalf("file %d: %p, then %p", ino+1, got, again)
		}
	}
	n := 0
	for ino, v := range table.All() {
		if n++; *v != int(ino)-1 || v != table.get(ino) {
			t.Fatalf("file %d has the value %d", ino, *v)
		}
	}
	if n != Max {
		t.Errorf("%d files have values, want %d", n, Max)
	}
}
