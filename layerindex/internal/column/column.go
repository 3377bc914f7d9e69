// Package column has runs of numbers and bytes that a file is made of, and what
// reads them again. They are kept in pieces, so that a column can grow, and be
// given back, without a copy of all that it holds.
package column

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	firstPiece = 512
	maxPiece   = 256 << 10
)

// ErrShort says that a column ends before the value that was to be read.
var ErrShort = errors.New("ends too early")

// A Column is a run of bytes in pieces, to which values are appended. The zero
// Column is empty. It is for one goroutine at a time.
type Column struct {
	Pieces [][]byte
	Size   int64 // of all pieces, in bytes
}

// Of returns the column that consists of b, which it keeps.
func Of(b []byte) Column { return Column{Pieces: [][]byte{b}, Size: int64(len(b))} }

// room returns the last piece, with room for n bytes more.
func (c *Column) room(n int) *[]byte {
	if last := len(c.Pieces) - 1; last >= 0 {
		if p := &c.Pieces[last]; cap(*p)-len(*p) >= n {
			return p
		}
	}
	size := firstPiece << min(len(c.Pieces), 9)
	c.Pieces = append(c.Pieces, make([]byte, 0, max(n, min(size, maxPiece))))
	return &c.Pieces[len(c.Pieces)-1]
}

// Uvarint appends an unsigned number, encoded as a varint.
func (c *Column) Uvarint(v uint64) {
	p := c.room(binary.MaxVarintLen64)
	before := len(*p)
	*p = binary.AppendUvarint(*p, v)
	c.Size += int64(len(*p) - before)
}

// Varint appends a signed number, encoded as a zigzag varint.
func (c *Column) Varint(v int64) { c.Uvarint(uint64(v<<1) ^ uint64(v>>63)) }

// Byte appends one byte.
func (c *Column) Byte(b byte) {
	p := c.room(1)
	*p = append(*p, b)
	c.Size++
}

// Text appends the bytes of s.
func (c *Column) Text(s string) {
	c.Size += int64(len(s))
	for len(s) > 0 {
		p := c.room(1)
		n := min(len(s), cap(*p)-len(*p))
		*p = append(*p, s[:n]...)
		s = s[n:]
	}
}

// Write appends b. It never fails.
func (c *Column) Write(b []byte) (int, error) {
	n := len(b)
	c.Size += int64(n)
	for len(b) > 0 {
		p := c.room(1)
		k := min(len(b), cap(*p)-len(*p))
		*p = append(*p, b[:k]...)
		b = b[k:]
	}
	return n, nil
}

// MoveTo writes the column to w and frees each piece as soon as it is written. The
// column is empty afterwards.
func (c *Column) MoveTo(w io.Writer) error {
	pieces := c.Pieces
	c.Pieces, c.Size = nil, 0
	for i, p := range pieces {
		if _, err := w.Write(p); err != nil {
			return err
		}
		pieces[i] = nil
	}
	return nil
}

// ReadN appends n bytes of r. It allocates only as r delivers them, so n may be
// a stranger's claim.
func (c *Column) ReadN(r io.Reader, n int64) error {
	for n > 0 {
		p := make([]byte, min(n, maxPiece))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		c.Pieces = append(c.Pieces, p)
		c.Size += int64(len(p))
		n -= int64(len(p))
	}
	return nil
}

// Cursor returns a cursor at the column's start. A cursor that drains frees the
// pieces behind it, so the column can be read only once.
func (c *Column) Cursor(drain bool) Cursor {
	if drain {
		defer func() { c.Pieces = nil }()
		return Cursor{more: c.Pieces, left: c.Size, drain: true}
	}
	return Cursor{more: c.Pieces, left: c.Size}
}

// A Cursor takes values from the front of a column. After the first failure, which
// Err keeps, values mean nothing. It is for one goroutine.
type Cursor struct {
	b     []byte   // what comes next
	next  []byte   // what comes after that: the rest of a piece
	more  [][]byte // and then
	left  int64    // bytes in more
	drain bool
	Err   error // of the first value that could not be read
}

// Over returns a cursor over b.
func Over(b []byte) Cursor { return Cursor{b: b} }

// Rest returns how many bytes are left.
func (c *Cursor) Rest() int64 { return int64(len(c.b)) + int64(len(c.next)) + c.left }

// fill has at least n bytes in b, if so many are left. Of a value that lies
// across pieces no more than the value is copied.
func (c *Cursor) fill(n int) {
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
func (c *Cursor) pull() bool {
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

// Uvarint takes an unsigned number.
func (c *Cursor) Uvarint() uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return uint64(v)
	}
	return c.longUvarint()
}

// Byte takes one byte.
func (c *Cursor) Byte() byte {
	if len(c.b) == 0 {
		if c.fill(1); len(c.b) == 0 {
			c.Err = ErrShort
			return 0
		}
	}
	b := c.b[0]
	c.b = c.b[1:]
	return b
}

func (c *Cursor) longUvarint() uint64 {
	if len(c.b) < binary.MaxVarintLen64 {
		c.fill(binary.MaxVarintLen64)
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.Err = ErrShort
		return 0
	}
	c.b = c.b[n:]
	return v
}

// Length takes a count, which at least as many bytes must follow.
func (c *Cursor) Length() int {
	v := c.Uvarint()
	if v > uint64(c.Rest()) {
		c.Err = ErrShort
		return 0
	}
	return int(v)
}

// Small takes a number that must not be above limit.
func (c *Cursor) Small(limit uint64) uint64 {
	v := c.Uvarint()
	if v > limit {
		c.Err = fmt.Errorf("value %d above %d", v, limit)
		return 0
	}
	return v
}

// Int takes a number that is used as a length in another column.
func (c *Cursor) Int() int { return int(c.Small(1<<31 - 1)) }

// Varint takes a signed number.
func (c *Cursor) Varint() int64 {
	v := c.Uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// Bytes takes n bytes. They are valid as long as the column is.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || int64(n) > c.Rest() {
		c.Err = ErrShort
		return nil
	}
	if n > len(c.b) {
		c.fill(n)
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

// Remainder returns a copy of what is left.
func (c *Cursor) Remainder() Column {
	left := Column{Size: c.Rest()}
	for _, p := range append([][]byte{c.b, c.next}, c.more...) {
		if len(p) > 0 {
			left.Pieces = append(left.Pieces, bytes.Clone(p))
		}
	}
	return left
}
