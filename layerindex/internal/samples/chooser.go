package samples

import (
	"strings"
	"testing"
)

// A Chooser makes decisions of a fuzzer's bytes; when they are used up, the
// first of what can be chosen.
type Chooser struct{ Data []byte }

// IntN is a number from 0 to below n.
func (c *Chooser) IntN(n int) int {
	if len(c.Data) == 0 {
		return 0
	}
	b := c.Data[0]
	c.Data = c.Data[1:]
	return int(b) % n
}

// Number is any number of up to 64 bits, small ones more often.
func (c *Chooser) Number() (n uint64) {
	for range c.IntN(9) {
		n = n<<8 | uint64(c.IntN(256))
	}
	return n
}

// Text is up to n bytes, with a NUL in none.
func (c *Chooser) Text(n int) string {
	b := make([]byte, c.IntN(n+1))
	for i := range b {
		b[i] = byte(1 + c.IntN(255))
	}
	return string(b)
}

// Pick is one of list.
func Pick[E any](c *Chooser, list ...E) E { return list[c.IntN(len(list))] }

// Name is a path of few components, long ones among them.
func (c *Chooser) Name() string {
	var parts []string
	for range 1 + c.IntN(4) {
		parts = append(parts, Pick(c, "a", "b", "usr", ".wh.b", "..", "", "\xff\xfe", "ü", strings.Repeat("n", 1+c.IntN(255)), c.Text(12)))
	}
	return strings.Join(parts, "/")
}

// SeedBytes adds bytes for a Chooser to a fuzzer.
func SeedBytes(f *testing.F) {
	f.Helper()
	f.Add([]byte{})
	for seed := range 8 {
		b := make([]byte, 500)
		for i := range b {
			b[i] = byte(i*i*(2*seed+1) + i*7 + seed*31 + i>>3)
		}
		f.Add(b)
	}
}
