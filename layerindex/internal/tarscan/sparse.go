package tarscan

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/imgfs/imgfs/layerindex"
)

// maxExtents bounds the map of one sparse file. GNU tar itself writes no more
// than one extent for 1 KiB of file.
const maxExtents = 1 << 20

// A sparseMap gathers the extents of one sparse file in the order of its tar.
// Empty extents are dropped and touching ones are joined.
type sparseMap struct {
	size    int64 // of the file
	extents []layerindex.Extent
	listed  int   // extents seen, kept or not
	blocks  int   // of the map, besides the header
	end     int64 // of the last extent seen
	stored  int64 // sum of the extents' sizes
	budget  *layerindex.Budget
	held    int64 // bytes taken from it
}

// reset makes m the map of a file without data and keeps its memory.
func (m *sparseMap) reset(size int64) {
	if m.extents == nil {
		m.extents = []layerindex.Extent{} // of a file that is one hole, too
	}
	*m = sparseMap{size: size, extents: m.extents[:0], budget: m.budget, held: m.held}
}

func (m *sparseMap) add(off, size int64) error {
	if m.listed == maxExtents {
		return fmt.Errorf("sparse map has more than %d extents", maxExtents)
	}
	if off < m.end || size < 0 || off > m.size || size > m.size-off {
		return fmt.Errorf("sparse map: extent of %d bytes at %d does not fit behind %d in a file of %d bytes",
			size, off, m.end, m.size)
	}
	m.listed++
	m.end = off + size
	m.stored += size
	if size == 0 {
		return nil
	}
	n := len(m.extents)
	if n > 0 && m.extents[n-1].Off+m.extents[n-1].Size == off {
		m.extents[n-1].Size += size
		return nil
	}
	if n == cap(m.extents) {
		// The room stays for the next file, and is counted once.
		room := max(64, n)
		m.held += layerindex.ExtentCost * int64(room)
		if err := m.budget.Take(layerindex.ExtentCost * int64(room)); err != nil {
			return err
		}
		m.extents = slices.Grow(m.extents, room)
	}
	m.extents = append(m.extents, layerindex.Extent{Off: off, Size: size})
	return nil
}

// addBlock counts one more block of the map. More than archive/tar takes are
// refused.
func (m *sparseMap) addBlock() error {
	if m.blocks++; m.blocks*blockSize > maxMeta {
		return fmt.Errorf("sparse map of more than %d bytes", maxMeta)
	}
	return nil
}

// dense reports whether the file has no hole after all.
func (m *sparseMap) dense() bool { return m.stored == m.size }

// addGNU takes the n extents, 24 bytes each, of an old GNU header or one of
// its extension blocks. An extent whose first byte is NUL ends them.
func (m *sparseMap) addGNU(b []byte, n int) error {
	for ; n > 0 && b[0] != 0; n, b = n-1, b[24:] {
		off, ok1 := parseNumber(b[:12])
		size, ok2 := parseNumber(b[12:24])
		if !ok1 || !ok2 {
			return errors.New("sparse map is not made of numbers")
		}
		if err := m.add(off, size); err != nil {
			return err
		}
	}
	return nil
}

// A sparseKind says where the map of a sparse file is.
type sparseKind byte

const (
	notSparse    sparseKind = iota
	sparsePax               // in records: GNU's pax formats 0.0 and 0.1
	sparseBody              // before the data: GNU's pax format 1.0
	sparseOldGNU            // in the header and extension blocks behind it
)

// A paxSparse holds the records that GNU tar describes a sparse file with (GNU
// tar manual, "Storing Sparse Files").
type paxSparse struct {
	major, minor   []byte
	name           []byte
	size, realSize []byte
	numBlocks      []byte
	extents        []byte // format 0.1: "offset,size,offset,size"
	pairs          int    // format 0.0: records offset and numbytes seen
	lone           []byte // value of the first of them
}

func (p *paxSparse) set(key, value []byte) error {
	suffix, ok := bytes.CutPrefix(key, []byte("GNU.sparse."))
	if !ok {
		return nil
	}
	switch string(suffix) {
	case "major":
		p.major = value
	case "minor":
		p.minor = value
	case "name":
		p.name = value
	case "size":
		p.size = value
	case "realsize":
		p.realSize = value
	case "numblocks":
		p.numBlocks = value
	case "map":
		p.extents = value
	case "offset", "numbytes":
		if (p.pairs%2 == 0) != (string(suffix) == "offset") {
			return fmt.Errorf("pax record %s is out of turn", key)
		}
		if bytes.IndexByte(value, ',') >= 0 {
			return fmt.Errorf("pax record %s: %q is not a number", key, clip(value))
		}
		if p.pairs++; p.pairs == 1 {
			p.lone = value
		}
	}
	return nil
}

// kind returns what the records say: a file is sparse by a version that is
// known, or by a map without a version. Other records, the name and the sizes
// among them, mean nothing by themselves. archive/tar decides all this in the same
// way, and with it the programs that unpack layers.
func (p *paxSparse) kind() sparseKind {
	switch major, minor := string(p.major), string(p.minor); {
	case major == "1" && minor == "0":
		return sparseBody
	case major == "0" && (minor == "0" || minor == "1"):
		return sparsePax
	case major != "" || minor != "":
		return notSparse
	case p.hasMap():
		return sparsePax
	}
	return notSparse
}

// hasMap reports whether the records have a map that is not empty.
func (p *paxSparse) hasMap() bool {
	if p.pairs > 0 {
		return p.pairs > 1 || len(p.lone) > 0
	}
	return len(p.extents) > 0
}

// fileSize returns the size of the file with its holes; stored is that of the
// entry's body.
func (p *paxSparse) fileSize(stored int64) (int64, error) {
	value := p.size
	if len(value) == 0 {
		value = p.realSize
	}
	if len(value) == 0 {
		return stored, nil
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("size of a sparse file: %q is not one", clip(value))
	}
	return n, nil
}

// readPax reads a map of format 0.0 or 0.1.
func (m *sparseMap) readPax(h *paxHeader) error {
	var pair [2]int64
	seen := 0
	take := func(number []byte) error {
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil {
			return fmt.Errorf("sparse map: %q is not a number", clip(number))
		}
		pair[seen%2] = n
		if seen++; seen%2 == 0 {
			return m.add(pair[0], pair[1])
		}
		return nil
	}
	var err error
	switch more := h.sparse.hasMap(); {
	case more && h.sparse.pairs > 0:
		err = eachSparsePair(h.body, take)
	case more:
		for rest := h.sparse.extents; more && err == nil; {
			var number []byte
			number, rest, more = bytes.Cut(rest, []byte(","))
			err = take(number)
		}
	}
	if err != nil {
		return err
	}
	claimed, err := strconv.ParseInt(string(h.sparse.numBlocks), 10, 64)
	if err != nil || claimed != int64(m.listed) || seen%2 != 0 {
		return fmt.Errorf("sparse map has %d numbers for %q extents", seen, clip(h.sparse.numBlocks))
	}
	return nil
}

// eachSparsePair calls take with the values of a map of format 0.0, whose
// records, against POSIX, count each time they come.
func eachSparsePair(body []byte, take func([]byte) error) error {
	for len(body) > 0 {
		key, value, rest, err := nextRecord(body)
		if err == nil && (string(key) == "GNU.sparse.offset" || string(key) == "GNU.sparse.numbytes") {
			err = take(value)
		}
		if err != nil {
			return err
		}
		body = rest
	}
	return nil
}

// A bodyMap decodes a map of format 1.0: decimal numbers with a line feed
// behind each, first how many extents there are, then their offsets and sizes.
// A number may have a sign, as for archive/tar.
type bodyMap struct {
	number int64
	digits int
	sign   byte  // '+' or '-', 0 without
	want   int64 // extents still to come; -1 while that is not known
	off    int64
	hasOff bool
}

// read takes the next block of the body. It reports whether the map is whole;
// the file's data then begins behind this block.
func (d *bodyMap) read(b *rawBlock, m *sparseMap) (bool, error) {
	for _, c := range b {
		if c != '\n' {
			if !d.digit(c) {
				return false, errors.New("sparse map is not made of numbers")
			}
			continue
		}
		if d.digits == 0 {
			return false, errors.New("sparse map has a line without a number")
		}
		if d.sign == '-' && d.number > 0 {
			return false, errors.New("sparse map has a number below zero")
		}
		if err := d.take(d.number, m); err != nil {
			return false, err
		}
		d.number, d.digits, d.sign = 0, 0, 0
		if d.want == 0 {
			return true, nil
		}
	}
	return false, nil
}

// digit takes a character of a number, and reports whether it can be one.
func (d *bodyMap) digit(c byte) bool {
	if (c == '+' || c == '-') && d.digits == 0 && d.sign == 0 {
		d.sign = c
		return true
	}
	if c < '0' || c > '9' || d.number > (math.MaxInt64-int64(c-'0'))/10 {
		return false
	}
	d.number = d.number*10 + int64(c-'0')
	d.digits++
	return true
}

func (d *bodyMap) take(n int64, m *sparseMap) error {
	switch {
	case d.want < 0:
		d.want = n
	case !d.hasOff:
		d.off, d.hasOff = n, true
	default:
		d.want, d.hasOff = d.want-1, false
		return m.add(d.off, n)
	}
	return nil
}
