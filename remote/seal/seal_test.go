package seal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func random(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n)})
	p := make([]byte, n)
	r.Read(p)
	return p
}

// keys are a key of each kind.
func keys() map[string]*Key {
	slow := NewKey()
	slow.mac = nil
	return map[string]*Key{"usual": NewKey(), "without AES": slow}
}

// Every read of what was sealed gives it, wherever it begins and ends; and none
// does that touches a block in which a byte has changed.
func TestRead(t *testing.T) {
	const block = 16
	for name, key := range keys() {
		for _, size := range []int{0, 1, block - 1, block, block + 1, 5*block + 3, 6 * block} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				data := random(size)
				table := NewTable(key, int64(size), block)
				table.Seal(0, data)
				for bad := -1; bad < size; bad++ {
					disk := bytes.Clone(data)
					if bad >= 0 {
						disk[bad] ^= 4
					}
					for off := range size {
						for end := off; end <= size; end++ {
							p := make([]byte, end-off)
							ok := table.Read(bytes.NewReader(disk), p, int64(off))
							touched := bad >= 0 && end > off && bad/block >= off/block && bad/block <= (end-1)/block
							if ok == touched || ok && !bytes.Equal(p, data[off:end]) {
								t.Fatalf("bytes %d to %d, with byte %d changed: %v", off, end, bad, ok)
							}
						}
					}
				}
			})
		}
	}
}

func TestReadOutside(t *testing.T) {
	data := random(100)
	table := NewTable(NewKey(), 100, 16)
	table.Seal(0, data)
	for _, r := range [][2]int64{{-1, 1}, {100, 1}, {99, 2}, {1 << 62, 5}} {
		if table.Read(bytes.NewReader(data), make([]byte, r[1]), r[0]) {
			t.Errorf("%d bytes from %d", r[1], r[0])
		}
	}
	for _, n := range []int{0, 1, 80, 99} { // the file is cut
		if table.Read(bytes.NewReader(data[:n]), make([]byte, 4), 96) {
			t.Errorf("the last bytes of a file of %d", n)
		}
	}
	if !table.Read(bytes.NewReader(append(bytes.Clone(data), 1)), make([]byte, 100), 0) {
		t.Error("a file that has become longer")
	}
}

// Only whole blocks are sealed, and what is forgotten is not known.
func TestSealInPieces(t *testing.T) {
	data := random(100)
	table := NewTable(NewKey(), 100, 16)
	known := func() string {
		s := ""
		for off := int64(0); off < 100; off += 16 {
			if table.Read(bytes.NewReader(data), make([]byte, min(16, 100-off)), off) {
				s += "x"
			} else {
				s += "-"
			}
		}
		return s
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "-------"},
		{func() { table.Seal(5, data[5:20]) }, "-------"},
		{func() { table.Seal(5, data[5:33]) }, "-x-----"},
		{func() { table.Seal(32, data[32:63]) }, "-xx----"},
		{func() { table.Seal(80, data[80:]) }, "-xx--xx"},
		{func() { table.Forget(47, 81) }, "-x----x"},
		{func() { table.Seal(0, append(bytes.Clone(data), 1, 2, 3)) }, "xxxxxxx"},
		{func() { table.Forget(0, 1<<60) }, "-------"},
	} {
		if step.do(); known() != step.want {
			t.Fatalf("known are %s, want %s", known(), step.want)
		}
	}
}

// An Appender makes the same table.
func TestAppender(t *testing.T) {
	key := NewKey()
	for _, size := range []int{0, 1, 16, 17, 160, 165} {
		data := random(size)
		want := NewTable(key, int64(size), 16)
		want.Seal(0, data)
		a := NewAppender(key, 16)
		for rest := data; len(rest) > 0; {
			n := min(48, len(rest))
			a.Append(rest[:n])
			rest = rest[n:]
		}
		if got := a.Table(); got.size != want.size || !slices.Equal(got.sums, want.sums) {
			t.Errorf("%d bytes: %v, want %v", size, got.sums, want.sums)
		}
	}
	var none *Appender
	none.Append([]byte("x"))
}

// Two keys have nothing in common, and blocks cannot change places.
func TestKeys(t *testing.T) {
	for name, key := range keys() {
		data := random(32)
		a, b := NewTable(key, 32, 16), NewTable(NewKey(), 32, 16)
		a.Seal(0, data)
		b.Seal(0, data)
		if a.sums[0] == b.sums[0] {
			t.Errorf("%s: two keys give the same sum", name)
		}
		if swapped := append(bytes.Clone(data[16:]), data[:16]...); a.Read(bytes.NewReader(swapped), make([]byte, 32), 0) {
			t.Errorf("%s: blocks have changed places", name)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for name, key := range keys() {
		data := random(1 << 20)
		table := NewTable(key, 1<<20, 16<<10)
		table.Seal(0, data)
		for _, r := range [][2]int64{{4096, 4096}, {0, 16 << 10}, {0, 128 << 10}, {5, 128 << 10}} {
			b.Run(fmt.Sprintf("%s/%d+%d", name, r[0], r[1]), func(b *testing.B) {
				p, file := make([]byte, r[1]), bytes.NewReader(data)
				b.SetBytes(r[1])
				b.ReportAllocs()
				for b.Loop() {
					if !table.Read(file, p, r[0]) {
						b.Fatal("not what was sealed")
					}
				}
			})
		}
	}
}
