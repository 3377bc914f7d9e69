package layerindex

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// maxExtents bounds the map of one sparse file. GNU tar itself writes no more
// than one extent for 1 KiB of file.
const maxExtents = 1 << 20

// A sparseMap gathers the extents of one sparse file in the order of its tar.
// Empty extents are dropped and touching ones are joined.
type sparseMap struct {
	size    int64 // of the file
	extents []Extent
	listed  int   // extents seen, kept or not
	end     int64 // of the last extent seen
	stored  int64 // sum of the extents' sizes
}

// reset makes m the map of a file without data and keeps its memory.
func (m *sparseMap) reset(size int64) {
	*m = sparseMap{size: size, extents: m.extents[:0]}
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
	if n := len(m.extents); n > 0 && m.extents[n-1].Off+m.extents[n-1].Size == off {
		m.extents[n-1].Size += size
	} else {
		m.extents = append(m.extents, Extent{off, size})
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
		p.pairs++
	}
	return nil
}

// kind returns what the records say. Records of an unknown format are refused,
// as the stored bytes then are not the file's.
func (p *paxSparse) kind() (sparseKind, error) {
	switch version := string(p.major) + "." + string(p.minor); version {
	case "1.0":
		return sparseBody, nil
	case "0.0", "0.1":
		return sparsePax, nil
	case ".":
		if p.pairs > 0 || len(p.extents)+len(p.numBlocks)+len(p.size)+len(p.realSize) > 0 {
			return sparsePax, nil
		}
		return notSparse, nil
	default:
		return notSparse, fmt.Errorf("unknown sparse format %q", clip([]byte(version)))
	}
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
	if h.sparse.pairs > 0 {
		err = eachSparsePair(h.body, take)
	} else {
		for rest, more := h.sparse.extents, len(h.sparse.extents) > 0; more && err == nil; {
			var number []byte
			number, rest, more = bytes.Cut(rest, []byte(","))
			err = take(number)
		}
	}
	if err != nil {
		return err
	}
	claimed := int64(0)
	if len(h.sparse.numBlocks) > 0 || seen > 0 {
		claimed, err = strconv.ParseInt(string(h.sparse.numBlocks), 10, 64)
	}
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
type bodyMap struct {
	number int64
	digits int
	want   int64 // extents still to come; -1 while that is not known
	off    int64
	hasOff bool
}

// read takes the next block of the body. It reports whether the map is whole;
// the file's data then begins behind this block.
func (d *bodyMap) read(b *rawBlock, m *sparseMap) (bool, error) {
	for _, c := range b {
		if c != '\n' {
			if c < '0' || c > '9' || d.number > (math.MaxInt64-9)/10 || d.digits == 20 {
				return false, errors.New("sparse map is not made of numbers")
			}
			d.number = d.number*10 + int64(c-'0')
			d.digits++
			continue
		}
		if d.digits == 0 {
			return false, errors.New("sparse map has an empty line")
		}
		if err := d.take(d.number, m); err != nil {
			return false, err
		}
		d.number, d.digits = 0, 0
		if d.want == 0 {
			return true, nil
		}
	}
	return false, nil
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
