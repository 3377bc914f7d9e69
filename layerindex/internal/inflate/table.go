package inflate

import "math/bits"

// An entry of a table has
//
//	bits 0-5    the number of bits to take: the rest of the codeword and,
//	            behind it, the extra bits
//	bit 6       exception: none of the following two
//	bits 8-11   the number of bits of the codeword alone
//	bits 16-30  a literal, or the base of a length or distance
//	bit 31      it is a literal
//
// The low bits can so be a shift count and be subtracted from the number of
// bits that are left without any masking, and the two questions of the loop,
// literal and exception, are tests of a sign and of a bit in the low byte.
//
// An exception is the end of the block (stopBit, and 0 in bits 16-30), an
// invalid codeword (stopBit, 1), or, without stopBit, a link to a subtable:
// it takes the bits of the main table, bits 8-11 say how many more bits index the
// subtable, bits 16-30 where in the array it begins.
const (
	literalBit = 1 << 31
	exception  = 1 << 6
	stopBit    = 1 << 7
	takeMask   = 63

	// exceptions tests for exception just as well, and compiles to a TEST
	// that fuses with the jump, where a single bit gives a slower BT.
	exceptions = exception | stopBit

	endEntry     = exception | stopBit
	invalidEntry = exception | stopBit | 1<<16
)

const (
	litBits  = 11
	distBits = 8
	lenBits  = 7

	// The most that complete codes of 288 symbols (litBits) and of 32
	// (distBits) with at most 15 bits need is 2342 and 402 entries.
	litSize  = 4096
	distSize = 512
	lenSize  = 128

	litMask  = litSize - 1
	distMask = distSize - 1

	maxLits  = 286 // RFC 1951, 3.2.5: 286 and 287 never occur
	maxDists = 30  // and neither do the distances 30 and 31
	maxLens  = 19
	maxCode  = 15 // bits
)

// symbols holds the entry of each symbol without the length of its codeword.
type symbols struct {
	lit  [288]uint32
	dist [32]uint32
	lens [maxLens]uint32
}

// init computes the tables of RFC 1951, 3.2.5.
func (s *symbols) init() {
	for i := range s.lit {
		s.lit[i] = literalBit | uint32(i)<<16
	}
	s.lit[256] = endEntry
	base := uint32(3)
	for i := range uint32(28) {
		extra := uint32(0)
		if i >= 8 {
			extra = i/4 - 1
		}
		s.lit[257+i] = base<<16 | extra
		base += 1 << extra
	}
	s.lit[285] = 258 << 16
	s.lit[286], s.lit[287] = invalidEntry, invalidEntry

	base = 1
	for i := range uint32(maxDists) {
		extra := uint32(0)
		if i >= 4 {
			extra = i/2 - 1
		}
		s.dist[i] = base<<16 | extra
		base += 1 << extra
	}
	s.dist[30], s.dist[31] = invalidEntry, invalidEntry

	for i := range s.lens {
		s.lens[i] = uint32(i) << 16
	}
}

// build fills table, with a main table of width bits, for the canonical code
// (RFC 1951, 3.2.2) in which the symbol i has lengths[i] bits. The length of
// table is a power of two. It fails as compress/flate does if the code is
// oversubscribed or incomplete, except that it may have no codeword at all or
// one of a single bit; what is not a codeword is then an invalid entry.
func build(table []uint32, width uint, lengths []uint8, syms []uint32) bool {
	var count [maxCode + 1]uint16
	for _, n := range lengths {
		count[n&maxCode]++
	}
	used := uint16(len(lengths)) - count[0]
	if !complete(&count) && used != 0 && (used != 1 || count[1] != 1) {
		return false
	}
	sorted := sortByLength(&count, lengths)

	// The codewords are taken in order. rev is the next one with its bits
	// reversed, since DEFLATE has the first bit lowest. When a bit is added,
	// what has been filled so far is doubled.
	mask := uint(len(table) - 1)
	table[0] = invalidEntry
	rev, i := uint(0), 0
	for n := uint(1); n <= width; n++ {
		copy(table[1<<(n-1):1<<n], table[:1<<(n-1)])
		for range count[n&maxCode] {
			table[rev&mask] = syms[sorted[i]] + uint32(n*0x101)
			rev = nextReversed(rev, n)
			i++
		}
	}
	if uint16(i) < used {
		buildSubtables(table, width, &count, sorted[i:used], rev, syms)
	}
	return true
}

// buildSubtables does what is left of build: the codewords longer than width.
func buildSubtables(table []uint32, width uint, count *[maxCode + 1]uint16, sorted []uint16, rev uint, syms []uint32) {
	mask := uint(len(table) - 1)
	next := uint(1) << width
	prefix, start, size := ^uint(0), uint(0), uint(0)
	i := 0
	for n := width + 1; n <= maxCode; n++ {
		for left := uint(count[n]); left > 0; left-- {
			if p := rev & (1<<width - 1); p != prefix {
				prefix, start = p, next
				sub := subtableBits(n-width, left, count[n+1:])
				size = 1 << sub
				next += size
				table[p] = uint32(start<<16 | sub<<8 | exception | width)
			}
			e := syms[sorted[i]] + uint32((n-width)*0x101)
			for j := rev >> width; j < size; j += 1 << (n - width) {
				table[(start+j)&mask] = e
			}
			rev = nextReversed(rev, n)
			i++
		}
	}
}

// subtableBits returns the width of a subtable whose first codeword has sub
// bits in it, when left codewords of this length and longer[0], longer[1] and
// so on of the greater lengths are still to be placed.
func subtableBits(sub, left uint, longer []uint16) uint {
	for _, n := range longer {
		if left >= 1<<sub {
			break
		}
		sub++
		left = left<<1 + uint(n)
	}
	return sub
}

// complete tells whether codewords of these lengths use up all the code space
// and not more.
func complete(count *[maxCode + 1]uint16) bool {
	left := 1
	for _, n := range count[1:] {
		left = left<<1 - int(n)
		if left < 0 {
			return false
		}
	}
	return left == 0
}

// sortByLength returns the symbols that have codewords in their order.
func sortByLength(count *[maxCode + 1]uint16, lengths []uint8) (sorted [512]uint16) {
	var next [maxCode + 1]uint16
	for n := 1; n < maxCode; n++ {
		next[n+1] = next[n] + count[n]
	}
	next[0] = 288 // those without a codeword go behind the rest
	for i, n := range lengths {
		p := &next[n&maxCode]
		sorted[*p&511] = uint16(i)
		if n != 0 {
			*p++
		}
	}
	return sorted
}

// nextReversed adds 1 to a codeword of n bits that is held in reverse.
func nextReversed(rev, n uint) uint {
	zeros := rev ^ (1<<n - 1)
	if zeros == 0 {
		return 0
	}
	top := uint(1) << (bits.Len(zeros) - 1)
	return rev&(top-1) | top
}
