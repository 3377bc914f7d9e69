package blobfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sort"
)

const (
	// MaxCuts bounds the cuts of a blob.
	MaxCuts = 1 << 20
	// cutSize is the length of a cut's entry in the table of a file.
	cutSize = 12
	// tableBatch is how many entries are read or written at once.
	tableBatch = 4096
)

// A Table says how a blob is cut that is not cut into chunks of one size:
// docs/cache-format.md, "Blob files of other cuts". It never changes.
type Table struct {
	sum     [SumSize]byte
	cuts    []cut
	longest int64
}

type cut struct{ off, end int64 } // in the blob

// NewTable returns the table of n cuts of a blob of size bytes, whose sum is sum.
// The error says which cut cannot be.
func NewTable(size int64, sum [SumSize]byte, n int64, bounds func(k int64) (off, end int64)) (*Table, error) {
	if n < 0 || n > MaxCuts {
		return nil, fmt.Errorf("%d cuts are not 0 to %d", n, MaxCuts)
	}
	t := &Table{sum: sum, cuts: make([]cut, 0, n)}
	for k := range n {
		c := cut{}
		c.off, c.end = bounds(k)
		if err := t.add(c, size); err != nil {
			return nil, fmt.Errorf("cut %d of bytes %d to %d: %w", k, c.off, c.end-1, err)
		}
	}
	return t, nil
}

// add adds the next cut if there can be such a one.
func (t *Table) add(c cut, size int64) error {
	switch {
	case c.off < 0 || c.end <= c.off || c.end > size:
		return fmt.Errorf("it does not lie in the %d bytes of the blob", size)
	case c.end-c.off > MaxChunk:
		return fmt.Errorf("it is longer than %d bytes", MaxChunk)
	}
	if n := len(t.cuts); n > 0 {
		if last := t.cuts[n-1]; c.off <= last.off || c.end <= last.end || c.off < last.end-1 {
			return fmt.Errorf("the one before it has bytes %d to %d", last.off, last.end-1)
		}
	}
	t.cuts = append(t.cuts, c)
	t.longest = max(t.longest, c.end-c.off)
	return nil
}

// equal reports whether two tables, of which each may be nil, are the same.
func (t *Table) equal(o *Table) bool {
	if t == o || t == nil || o == nil {
		return t == o
	}
	return t.sum == o.sum && slices.Equal(t.cuts, o.cuts)
}

// encode returns the table as a file has it.
func (t *Table) encode() []byte {
	p := make([]byte, 0, cutSize*len(t.cuts))
	for _, c := range t.cuts {
		p = binary.LittleEndian.AppendUint64(p, uint64(c.off))
		p = binary.LittleEndian.AppendUint32(p, uint32(c.end-c.off))
	}
	return p
}

// readTable reads the table of n cuts from where it begins in a file.
func readTable(f io.ReaderAt, at, size, n int64, sum [SumSize]byte) (*Table, error) {
	t := &Table{sum: sum}
	buf := make([]byte, cutSize*min(n, tableBatch))
	for k := int64(0); k < n; k += tableBatch {
		p := buf[:cutSize*min(n-k, tableBatch)]
		if _, err := f.ReadAt(p, at+cutSize*k); err != nil {
			return nil, err
		}
		for ; len(p) > 0; p = p[cutSize:] {
			off := int64(min(binary.LittleEndian.Uint64(p), 1<<62))
			if err := t.add(cut{off, off + int64(binary.LittleEndian.Uint32(p[8:]))}, size); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// behind returns the first cut that begins behind off.
func (t *Table) behind(off int64) int64 {
	return int64(sort.Search(len(t.cuts), func(k int) bool { return t.cuts[k].off > off }))
}

// reaching returns the first cut that ends at end or later.
func (t *Table) reaching(end int64) int64 {
	return int64(sort.Search(len(t.cuts), func(k int) bool { return t.cuts[k].end >= end }))
}

// span returns the cuts that a read of the bytes from off to end needs: of two
// that share its first or its last byte only one, if the other has nothing else
// of it. What lies in a gap needs none.
func (t *Table) span(off, end int64) (first, stop int64) {
	first = t.behind(off)
	begun := first > 0 && t.cuts[first-1].end > off
	if begun {
		first--
	}
	stop = t.reaching(end)
	if stop < int64(len(t.cuts)) && t.cuts[stop].off < end {
		stop++
	}
	if begun {
		stop = max(stop, first+1)
	}
	return first, max(first, stop)
}
