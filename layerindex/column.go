package layerindex

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	firstPiece = 512
	maxPiece   = 256 << 10
)

// A column is a run of bytes in pieces, so that it can grow, and be given back,
// without a copy of all that it holds.
type column struct {
	pieces [][]byte
	size   int64 // of all pieces
}

// room returns the last piece, with room for n bytes more.
func (c *column) room(n int) *[]byte {
	if last := len(c.pieces) - 1; last >= 0 {
		if p := &c.pieces[last]; cap(*p)-len(*p) >= n {
			return p
		}
	}
	size := firstPiece << min(len(c.pieces), 9)
	c.pieces = append(c.pieces, make([]byte, 0, max(n, min(size, maxPiece))))
	return &c.pieces[len(c.pieces)-1]
}

func (c *column) uvarint(v uint64) {
	p := c.room(binary.MaxVarintLen64)
	before := len(*p)
	*p = binary.AppendUvarint(*p, v)
	c.size += int64(len(*p) - before)
}

func (c *column) varint(v int64) { c.uvarint(uint64(v<<1) ^ uint64(v>>63)) }

func (c *column) byte(b byte) {
	p := c.room(1)
	*p = append(*p, b)
	c.size++
}

// text appends bytes, in as many pieces as they take.
func (c *column) text(s string) {
	c.size += int64(len(s))
	for len(s) > 0 {
		p := c.room(1)
		n := min(len(s), cap(*p)-len(*p))
		*p = append(*p, s[:n]...)
		s = s[n:]
	}
}

// Write is text, as an io.Writer.
func (c *column) Write(b []byte) (int, error) {
	n := len(b)
	c.size += int64(n)
	for len(b) > 0 {
		p := c.room(1)
		k := min(len(b), cap(*p)-len(*p))
		*p = append(*p, b[:k]...)
		b = b[k:]
	}
	return n, nil
}

// moveTo writes the column to w and gives each piece back when it is written.
func (c *column) moveTo(w io.Writer) error {
	pieces := c.pieces
	c.pieces, c.size = nil, 0
	for i, p := range pieces {
		if _, err := w.Write(p); err != nil {
			return err
		}
		pieces[i] = nil
	}
	return nil
}

// read appends n bytes of r. What is allocated follows the bytes that are there.
func (c *column) read(r io.Reader, n int64) error {
	for n > 0 {
		p := make([]byte, min(n, maxPiece))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		c.pieces = append(c.pieces, p)
		c.size += int64(len(p))
		n -= int64(len(p))
	}
	return nil
}

// cursor returns a cursor at the column's start. One that drains gives the
// pieces back behind it: the column can be read only once.
func (c *column) cursor(drain bool) cursor {
	if drain {
		defer func() { c.pieces = nil }()
		return cursor{more: c.pieces, left: c.size, drain: true}
	}
	return cursor{more: c.pieces, left: c.size}
}

// A cursor takes values from the front of a column. The first failure sticks.
type cursor struct {
	b     []byte   // what comes next
	next  []byte   // what comes after that: the rest of a piece
	more  [][]byte // and then
	left  int64    // bytes in more
	drain bool
	err   error
}

// rest returns how many bytes are left.
func (c *cursor) rest() int64 { return int64(len(c.b)) + int64(len(c.next)) + c.left }

// fill has at least n bytes in b, if so many are left. Of a value that lies
// across pieces no more than the value is copied.
func (c *cursor) fill(n int) {
	for len(c.b) < n {
		if len(c.next) == 0 && !c.pull() {
			return
		}
		if len(c.b) == 0 {
			c.b, c.next = c.next, nil
			continue
		}
		k := min(n-len(c.b), len(c.next))
		joined := make([]byte, 0, min(n, len(c.b)+len(c.next)))
		c.b = append(append(joined, c.b...), c.next[:k]...)
		c.next = c.next[k:]
	}
}

// pull makes the first of the pieces that come the next one.
func (c *cursor) pull() bool {
	if len(c.more) == 0 {
		return false
	}
	c.next = c.more[0]
	if c.drain {
		c.more[0] = nil
	}
	c.more = c.more[1:]
	c.left -= int64(len(c.next))
	return true
}

func (c *cursor) uvarint() uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return uint64(v)
	}
	return c.longUvarint()
}

// byte takes one byte.
func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		if c.fill(1); len(c.b) == 0 {
			c.err = errShort
			return 0
		}
	}
	b := c.b[0]
	c.b = c.b[1:]
	return b
}

func (c *cursor) longUvarint() uint64 {
	if len(c.b) < binary.MaxVarintLen64 {
		c.fill(binary.MaxVarintLen64)
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.err = errShort
		return 0
	}
	c.b = c.b[n:]
	return v
}

// length takes a count that at least as many bytes must follow.
func (c *cursor) length() int {
	v := c.uvarint()
	if v > uint64(c.rest()) {
		c.err = errShort
		return 0
	}
	return int(v)
}

// small takes a value that must not be above limit.
func (c *cursor) small(limit uint64) uint64 {
	v := c.uvarint()
	if v > limit {
		c.err = fmt.Errorf("value %d above %d", v, limit)
		return 0
	}
	return v
}

// intValue takes a value that is used as a length of another column.
func (c *cursor) intValue() int { return int(c.small(1<<31 - 1)) }

func (c *cursor) svarint() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// bytes takes n bytes. They are valid as long as the column is.
func (c *cursor) bytes(n int) []byte {
	if n < 0 || int64(n) > c.rest() {
		c.err = errShort
		return nil
	}
	if n > len(c.b) {
		c.fill(n)
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}
