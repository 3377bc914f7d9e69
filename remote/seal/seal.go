// Package seal notices that bytes on disk are no longer the ones that were
// checked before.
//
// The idea: comparing bytes with their SHA-256 each time they are read would
// cost a fifth of what decoding them costs, and means reading a whole chunk for
// a few bytes of it. So bytes that were compared once are sealed: a Table keeps a
// short sum of each block of the file, under a key that only this process knows,
// and bytes that are read later must have that sum. Sums are in memory and never
// written, so they say nothing to other processes, and nobody can make other bytes
// for them without reading the memory of this one.
//
//	key := seal.NewKey()
//	t := seal.NewTable(key, size, 16<<10)
//	t.Seal(off, data)            // data was checked just now
//	ok := t.Read(file, p, off)   // p is filled with what was checked, or ok is false
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// A Key is what sums are made with. It is safe for concurrent use.
type Key struct {
	secret [16]byte
	// mac is AES-GCM used for its authentication alone, which takes a
	// seventh of what SHA-256 takes; nil where the processor does not help.
	mac     cipher.AEAD
	scratch sync.Pool // of *scratch
}

// A scratch is the memory of one read.
type scratch struct {
	nonce [12]byte
	sum   [16]byte
	block []byte
}

// NewKey returns a new random key.
func NewKey() *Key {
	k := &Key{}
	k.scratch.New = func() any { return &scratch{} }
	_, _ = rand.Read(k.secret[:]) // it never fails
	if !hasAES() {
		return k
	}
	if block, err := aes.NewCipher(k.secret[:]); err == nil {
		// It fails where only what FIPS 140 allows may be used.
		k.mac, _ = cipher.NewGCM(block)
	}
	return k
}

// hasAES reports whether the processor has instructions for AES-GCM. Without
// them SHA-256 is the faster one.
func hasAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
}

// sum returns the sum of some bytes, which is never 0.
//
// One nonce for all is no flaw here: that is for sums which somebody sees.
// Without the key, other bytes have the same sum with a chance of about their
// length in blocks of 16 bytes in 2^64.
func (k *Key) sum(s *scratch, data []byte) uint64 {
	if k.mac != nil {
		return max(1, binary.LittleEndian.Uint64(k.mac.Seal(s.sum[:0], s.nonce[:], nil, data)))
	}
	h := sha256.New()
	h.Write(k.secret[:])
	h.Write(data)
	return max(1, binary.LittleEndian.Uint64(h.Sum(nil)))
}

// A Table has the sums of the blocks of one file, as far as they are known. It
// is safe for concurrent use, and takes 8 bytes a block.
type Table struct {
	key         *Key
	size, block int64
	sums        []uint64 // 0: not known; read and written atomically
}

// NewTable returns the table of a file of size bytes, of which nothing is known,
// in blocks of a length. It takes its memory at once: a size that somebody claims
// is for an Appender.
func NewTable(key *Key, size, block int64) *Table {
	return &Table{key: key, size: size, block: block, sums: make([]uint64, (size+block-1)/block)}
}

// An Appender makes the table of a file whose bytes pass by in their order. The
// nil Appender does nothing.
type Appender struct{ t Table }

// NewAppender returns the Appender of a file in blocks of a length.
func NewAppender(key *Key, block int64) *Appender { return &Appender{Table{key: key, block: block}} }

// Append seals the next bytes of the file: whole blocks, but for the last ones.
func (a *Appender) Append(data []byte) {
	if a == nil || len(data) == 0 {
		return
	}
	off := a.t.size
	a.t.size += int64(len(data))
	blocks := (a.t.size + a.t.block - 1) / a.t.block
	a.t.sums = append(a.t.sums, make([]uint64, blocks-int64(len(a.t.sums)))...)
	a.t.Seal(off, data)
}

// Table returns the table of what was appended. Nothing may be appended any more.
func (a *Appender) Table() *Table { return &a.t }

// Seal notes that the file has data at off, and nothing else may be read there.
// The caller has checked it. What is no whole block is left out.
func (t *Table) Seal(off int64, data []byte) {
	s := t.key.scratch.Get().(*scratch)
	defer t.key.scratch.Put(s)
	if skip := (t.block - off%t.block) % t.block; skip > 0 {
		if skip >= int64(len(data)) {
			return
		}
		off, data = off+skip, data[skip:]
	}
	for len(data) > 0 {
		n := min(t.block, t.size-off)
		if n <= 0 || n > int64(len(data)) {
			return
		}
		atomic.StoreUint64(&t.sums[off/t.block], t.key.sum(s, data[:n]))
		off, data = off+n, data[n:]
	}
}

// Forget takes back what was sealed of the bytes from off to end.
func (t *Table) Forget(off, end int64) {
	for i := off / t.block; i*t.block < min(end, t.size); i++ {
		atomic.StoreUint64(&t.sums[i], 0)
	}
}

// Read fills p from off of the file, which it reads in whole blocks, and
// reports whether all of it is what was sealed. If not, p holds anything.
func (t *Table) Read(file io.ReaderAt, p []byte, off int64) bool {
	if off < 0 || off > t.size-int64(len(p)) {
		return false
	}
	s := t.key.scratch.Get().(*scratch)
	defer t.key.scratch.Put(s)
	for len(p) > 0 {
		n := t.whole(off, int64(len(p)))
		ok := false
		if n > 0 {
			ok = t.readBlocks(file, s, p[:n], off)
		} else {
			n, ok = t.readPart(file, s, p, off)
		}
		if !ok {
			return false
		}
		p, off = p[n:], off+n
	}
	return true
}

// whole returns how many of the n bytes from off are whole blocks, from off on.
func (t *Table) whole(off, n int64) int64 {
	if off%t.block != 0 {
		return 0
	}
	if off+n == t.size {
		return n
	}
	return n / t.block * t.block
}

// readBlocks reads whole blocks.
func (t *Table) readBlocks(file io.ReaderAt, s *scratch, p []byte, off int64) bool {
	for i := off / t.block; i*t.block < off+int64(len(p)); i++ {
		if atomic.LoadUint64(&t.sums[i]) == 0 {
			return false
		}
	}
	if n, _ := file.ReadAt(p, off); n < len(p) {
		return false
	}
	for i := off / t.block; len(p) > 0; i++ {
		n := min(t.block, int64(len(p)))
		if t.key.sum(s, p[:n]) != atomic.LoadUint64(&t.sums[i]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// readPart reads the block that off is in, and copies as much of it as p has
// room for.
func (t *Table) readPart(file io.ReaderAt, s *scratch, p []byte, off int64) (int64, bool) {
	begin := off / t.block * t.block
	n := min(t.block, t.size-begin)
	if int64(cap(s.block)) < n {
		s.block = make([]byte, t.block)
	}
	if !t.readBlocks(file, s, s.block[:n], begin) {
		return 0, false
	}
	return int64(copy(p, s.block[off-begin:n])), true
}
