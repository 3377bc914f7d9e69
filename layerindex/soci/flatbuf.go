package soci

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A buffer is a FlatBuffers file: tables, vectors and strings that name each other by
// distances (https://flatbuffers.dev/internals/). It is a stranger's: every place is
// compared with the length before anything there is read. After the first error all
// that is read is zero or empty, and err says what was wrong.
//
// Nothing forbids several distances to the same bytes. What is read in all is bounded
// by readings times the length, so that a small file cannot keep a reader busy.
type buffer struct {
	b    []byte
	left int64 // bytes of vectors and strings that may still be read
	err  error
}

// readings is how often a buffer can be read: distances of a ztoc that was written by
// SOCI lead to different bytes, and it is read once.
const readings = 8

func newBuffer(b []byte) *buffer { return &buffer{b: b, left: readings * int64(len(b))} }

var errShared = errors.New("parts of it are used again and again")

// at returns n bytes from byte pos on, nil if they are not there.
func (f *buffer) at(pos, n int64) []byte {
	size := int64(len(f.b))
	if f.err == nil && (pos < 0 || n < 0 || pos > size || n > size-pos) {
		f.err = fmt.Errorf("%d bytes at %d of %d", n, pos, size)
	}
	if f.err != nil {
		return nil
	}
	return f.b[pos : pos+n]
}

func (f *buffer) uint16(pos int64) uint16 {
	if p := f.at(pos, 2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (f *buffer) uint32(pos int64) uint32 {
	if p := f.at(pos, 4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// follow returns the place that the distance at pos leads to.
func (f *buffer) follow(pos int64) int64 { return pos + int64(f.uint32(pos)) }

// bytes returns the string or the vector of bytes at pos. It lies in the buffer.
func (f *buffer) bytes(pos int64) []byte {
	n := int64(f.uint32(pos))
	p := f.at(pos+4, n)
	f.count(n)
	return p
}

// count takes n bytes off what may still be read.
func (f *buffer) count(n int64) {
	if f.left -= n; f.left < 0 && f.err == nil {
		f.err = errShared
	}
}

// root returns the table that the buffer begins with.
func (f *buffer) root() table { return f.table(f.follow(0)) }

// A table is a record of a buffer: fields by number, any of which may be absent.
type table struct {
	f      *buffer
	pos    int64
	fields []byte // for each field two bytes: its distance from pos, 0 if absent
}

func (f *buffer) table(pos int64) table {
	// The distance to the list of fields is signed, and backwards.
	list := pos - int64(int32(f.uint32(pos)))
	size := int64(f.uint16(list))
	if size < 4 && f.err == nil {
		f.err = fmt.Errorf("list of fields of %d bytes at %d", size, list)
	}
	fields := f.at(list, size)
	if fields == nil {
		return table{f: f}
	}
	return table{f: f, pos: pos, fields: fields[4:]}
}

// field returns the place of a field, and false if the table does not have it.
func (t table) field(i int) (int64, bool) {
	if 2*i+2 > len(t.fields) {
		return 0, false
	}
	off := binary.LittleEndian.Uint16(t.fields[2*i:])
	return t.pos + int64(off), off != 0
}

// byte returns a field of one byte, by default def.
func (t table) byte(i int, def byte) byte {
	if pos, ok := t.field(i); ok {
		if p := t.f.at(pos, 1); p != nil {
			return p[0]
		}
	}
	return def
}

// uint32 returns a field of four bytes, by default 0.
func (t table) uint32(i int) uint32 {
	pos, ok := t.field(i)
	if !ok {
		return 0
	}
	return t.f.uint32(pos)
}

// int64 returns a field of eight bytes, by default 0.
func (t table) int64(i int) int64 {
	if pos, ok := t.field(i); ok {
		if p := t.f.at(pos, 8); p != nil {
			return int64(binary.LittleEndian.Uint64(p))
		}
	}
	return 0
}

// bytes returns a field that is a string or a vector of bytes, by default none.
func (t table) bytes(i int) []byte {
	pos, ok := t.field(i)
	if !ok {
		return nil
	}
	return t.f.bytes(t.f.follow(pos))
}

// table returns a field that is a table, by default one without fields.
func (t table) table(i int) table {
	pos, ok := t.field(i)
	if !ok {
		return table{f: t.f}
	}
	return t.f.table(t.f.follow(pos))
}

// A vector is a row of distances, to strings or to tables.
type vector struct {
	f   *buffer
	pos int64 // of the first
	n   int
}

// vector returns a field that is a vector, by default one of no length.
func (t table) vector(i int) vector {
	pos, ok := t.field(i)
	if !ok {
		return vector{f: t.f}
	}
	pos = t.f.follow(pos)
	n := int64(t.f.uint32(pos))
	if t.f.at(pos+4, 4*n) == nil {
		return vector{f: t.f}
	}
	t.f.count(4 * n)
	return vector{f: t.f, pos: pos + 4, n: int(n)}
}

// bytes returns string i.
func (v vector) bytes(i int) []byte { return v.f.bytes(v.f.follow(v.pos + 4*int64(i))) }

// table returns table i.
func (v vector) table(i int) table { return v.f.table(v.f.follow(v.pos + 4*int64(i))) }
