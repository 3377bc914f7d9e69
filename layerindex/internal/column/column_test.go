package column

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestColumns writes values into a column and reads them again, of pieces of all
// sizes, with and without giving them back.
func TestColumns(t *testing.T) {
	testenv.Slow(t)
	rng := rand.New(rand.NewPCG(4, 2))
	for range 200 {
		var c Column
		var want []uint64
		var texts []string
		for range rng.IntN(400) {
			v := rng.Uint64() >> rng.IntN(64)
			s := strings.Repeat(string(byte('a'+rng.IntN(26))), rng.IntN(1<<rng.IntN(14)))
			want, texts = append(want, v), append(texts, s)
			c.Uvarint(v)
			c.Varint(-int64(v >> 1))
			c.Text(s)
			c.Byte(byte(v))
		}
		// The same bytes in pieces that end anywhere.
		all := slices.Concat(c.Pieces...)
		if int64(len(all)) != c.Size {
			t.Fatalf("%d bytes, the column says %d", len(all), c.Size)
		}
		cut := Column{Size: c.Size}
		for rest := all; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(1<<rng.IntN(12)))
			cut.Pieces, rest = append(cut.Pieces, rest[:n]), rest[n:]
		}
		for _, drain := range []bool{false, false, true} {
			k := cut.Cursor(drain)
			for i, v := range want {
				if got := k.Uvarint(); got != v {
					t.Fatalf("value %d: %d, want %d", i, got, v)
				}
				if got := k.Varint(); got != -int64(v>>1) {
					t.Fatalf("value %d: %d, want %d", i, got, -int64(v>>1))
				}
				if got := k.Bytes(len(texts[i])); string(got) != texts[i] {
					t.Fatalf("text %d: %d bytes, want %d", i, len(got), len(texts[i]))
				}
				if got := k.Byte(); got != byte(v) {
					t.Fatalf("byte %d: %d", i, got)
				}
			}
			if k.Err != nil || k.Rest() != 0 || k.Uvarint() != 0 || k.Err == nil {
				t.Fatalf("at the end: %v, %d bytes left", k.Err, k.Rest())
			}
		}
		if cut.Pieces != nil {
			t.Error("a drained column keeps its pieces")
		}
	}
}
