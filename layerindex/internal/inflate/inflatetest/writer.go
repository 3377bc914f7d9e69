// Package inflatetest builds DEFLATE streams symbol by symbol, for tests that
// need what no encoder writes. It also keeps what the stream stands for, so
// every stream comes with its right answer.
package inflatetest

import "math/bits"

// A Writer writes a DEFLATE stream. Its zero value is ready for use.
type Writer struct {
	// Want is what the stream stands for so far.
	Want []byte

	buf  []byte
	acc  uint64
	n    uint
	lit  code
	dist code
}

// code holds the codewords of a Huffman code, with their bits reversed.
type code struct {
	words   []uint64
	lengths []uint8
}

// Bits writes the low n bits of v, at most 32, the lowest first.
func (w *Writer) Bits(v uint64, n uint) {
	w.acc |= v & (1<<n - 1) << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.buf = append(w.buf, byte(w.acc))
		w.acc >>= 8
	}
}

// Align writes zero bits up to the next byte boundary.
func (w *Writer) Align() {
	if w.n > 0 {
		w.Bits(0, 8-w.n)
	}
}

// BitOffset returns how many bits have been written.
func (w *Writer) BitOffset() int { return len(w.buf)*8 + int(w.n) }

// Bytes returns the stream, with zero bits up to the next byte boundary.
func (w *Writer) Bytes() []byte {
	w.Align()
	return w.buf
}

// Stored writes a stored block of p, which has at most 65535 bytes.
func (w *Writer) Stored(final bool, p []byte) {
	w.header(final, 0)
	w.Align()
	w.Bits(uint64(len(p)), 16)
	w.Bits(^uint64(len(p)), 16)
	w.buf = append(w.buf, p...)
	w.Want = append(w.Want, p...)
}

// Fixed begins a block with the fixed codes.
func (w *Writer) Fixed(final bool) {
	w.header(final, 1)
	lit := make([]uint8, 288)
	for i := range lit {
		switch {
		case i < 144:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		case i < 280:
			lit[i] = 7
		default:
			lit[i] = 8
		}
	}
	dist := make([]uint8, 32)
	for i := range dist {
		dist[i] = 5
	}
	w.lit, w.dist = newCode(lit), newCode(dist)
}

// Dynamic begins a block whose codes have the given lengths, of which there are
// at least 257 and 1.
func (w *Writer) Dynamic(final bool, lit, dist []uint8) {
	w.header(final, 2)
	w.Bits(uint64(len(lit)-257), 5)
	w.Bits(uint64(len(dist)-1), 5)
	w.Bits(19-4, 4)
	// A code of 4 bits for each length from 0 to 15, in the order of RFC
	// 1951, 3.2.7; none for repetitions.
	for i := range 19 {
		if i < 3 {
			w.Bits(0, 3)
		} else {
			w.Bits(4, 3)
		}
	}
	for _, n := range append(append([]uint8(nil), lit...), dist...) {
		w.Bits(uint64(bits.Reverse8(n)>>4), 4)
	}
	w.lit, w.dist = newCode(lit), newCode(dist)
}

func (w *Writer) header(final bool, kind uint64) {
	var bit uint64
	if final {
		bit = 1
	}
	w.Bits(bit|kind<<1, 3)
}

// newCode makes the canonical code of RFC 1951, 3.2.2.
func newCode(lengths []uint8) code {
	c := code{make([]uint64, len(lengths)), lengths}
	word := uint64(0)
	for n := uint8(1); n <= 15; n++ {
		word <<= 1
		for i, l := range lengths {
			if l == n {
				c.words[i] = bits.Reverse64(word) >> (64 - n)
				word++
			}
		}
	}
	return c
}

func (w *Writer) symbol(c code, i int) { w.Bits(c.words[i], uint(c.lengths[i])) }

// Literals writes each byte of p as a literal.
func (w *Writer) Literals(p ...byte) {
	for _, b := range p {
		w.symbol(w.lit, int(b))
	}
	w.Want = append(w.Want, p...)
}

// Match writes a match of length bytes, 3 to 258, from dist bytes back, 1 to
// 32768. If that is before the beginning, Want is not changed.
func (w *Writer) Match(length, dist int) {
	i, extra, n := split(length-3, 4)
	if length == 258 {
		i, n = 28, 0
	}
	w.symbol(w.lit, 257+i)
	w.Bits(uint64(extra), n)
	i, extra, n = split(dist-1, 2)
	w.symbol(w.dist, i)
	w.Bits(uint64(extra), n)
	if dist > len(w.Want) {
		return
	}
	for range length {
		w.Want = append(w.Want, w.Want[len(w.Want)-dist])
	}
}

// split returns the number of the symbol for v, its extra bits and how many
// they are, when there are per symbols with the same number of them.
func split(v, per int) (i, extra int, n uint) {
	if v < 2*per {
		return v, 0, 0
	}
	n = uint(bits.Len(uint(v/per)) - 1)
	return int(n)*per + v>>n, v & (1<<n - 1), n
}

// End writes the end of a block with codes.
func (w *Writer) End() { w.symbol(w.lit, 256) }
