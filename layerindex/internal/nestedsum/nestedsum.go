// Package nestedsum takes the SHA-256 of a stream and those of parts of it at
// once: of a tar and of the files in it, of a blob and of its chunks.
//
// A part that begins at a multiple of 64 bytes of the stream, as the parts of
// tars and blobs do, has the same blocks as the stream. The message schedule is
// then computed once for both sums, and their rounds, each of which waits for
// the one before, fill each other's gaps: on x86 processors with the SHA
// extensions two sums take the time of one. Elsewhere crypto/sha256 does both.
package nestedsum

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Size is the length of a sum in bytes.
const Size = sha256.Size

const blockSize = sha256.BlockSize

// A Hash is the state of a stream's sum and of that of the part that it is in,
// if any. It is for one goroutine.
type Hash struct {
	// Without the processor's help, and for a part that does not begin with
	// a block of the stream, these do it.
	plainStream, plainPart hash.Hash

	// The sums in vector order: see order.
	stream, part [8]uint32
	buf          [blockSize]byte // the first have bytes of a block
	have         int
	length       uint64 // of the stream, in bytes
	begin        uint64 // of the part
	apart        bool   // plainPart has the part
}

// New returns a Hash at the start of a stream.
func New() *Hash { return newHash(accelerated) }

func newHash(fast bool) *Hash {
	h := &Hash{stream: initial}
	if !fast {
		h.plainStream, h.plainPart = sha256.New(), sha256.New()
	}
	return h
}

// Begin says that a part begins here. A part before it is over.
func (h *Hash) Begin() {
	h.begin = h.length
	h.part = initial
	h.apart = h.plainStream != nil || h.have != 0
	if !h.apart {
		return
	}
	if h.plainPart == nil {
		h.plainPart = sha256.New()
	}
	h.plainPart.Reset()
}

// Write adds p to the stream alone: it belongs to no part.
func (h *Hash) Write(p []byte) {
	if h.plainStream != nil {
		h.plainStream.Write(p)
		return
	}
	var unused [8]uint32
	h.write(&unused, p)
}

// WritePart adds p to the stream and to the part that began last. Since then
// there must have been no Write.
func (h *Hash) WritePart(p []byte) {
	if h.apart {
		h.plainPart.Write(p)
		h.Write(p)
		return
	}
	h.write(&h.part, p)
}

// write adds p to the stream and to another sum.
func (h *Hash) write(other *[8]uint32, p []byte) {
	h.length += uint64(len(p))
	if h.have > 0 {
		n := copy(h.buf[h.have:], p)
		h.have += n
		p = p[n:]
		if h.have < blockSize {
			return
		}
		blocks(&h.stream, other, h.buf[:])
		h.have = 0
	}
	if n := len(p) &^ (blockSize - 1); n > 0 {
		blocks(&h.stream, other, p[:n])
		p = p[n:]
	}
	h.have = copy(h.buf[:], p)
}

// SumPart returns the sum of what was written with WritePart since Begin.
func (h *Hash) SumPart() [Size]byte {
	if h.apart {
		return [Size]byte(h.plainPart.Sum(nil))
	}
	return h.finish(h.part, h.length-h.begin)
}

// Sum returns the sum of the whole stream so far, which can go on.
func (h *Hash) Sum() [Size]byte {
	if h.plainStream != nil {
		return [Size]byte(h.plainStream.Sum(nil))
	}
	return h.finish(h.stream, h.length)
}

// finish pads a message as FIPS 180-4, 5.1.1 says and returns its sum. What is
// in buf is the end of it.
func (h *Hash) finish(state [8]uint32, length uint64) (sum [Size]byte) {
	var end [2 * blockSize]byte
	n := copy(end[:], h.buf[:h.have])
	end[n] = 0x80
	stop := blockSize
	if n+1+8 > blockSize {
		stop = 2 * blockSize
	}
	binary.BigEndian.PutUint64(end[stop-8:], length<<3)
	var unused [8]uint32
	blocks(&state, &unused, end[:stop])
	for i, place := range order {
		binary.BigEndian.PutUint32(sum[4*i:], state[place])
	}
	return sum
}

// order tells where in a state the words a to h of FIPS 180-4 lie: in the two
// vectors ABEF and CDGH, the word named first being the highest.
var order = [8]int{3, 2, 7, 6, 1, 0, 5, 4}

// initial is the first hash value of FIPS 180-4, 5.3.3.
var initial = func() (state [8]uint32) {
	for i, w := range [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {
		state[order[i]] = w
	}
	return state
}()
