//go:build linux

package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A Record is one of the texts that are kept, of which the last whole one is read
// whenever its writer was killed.
type Record int

const (
	// State is what the mount is.
	State Record = iota
	// Note is the caller's.
	Note
)

// MaxRecord is how long a record may be, in bytes.
const MaxRecord = recordSize - recordHead

// A record has two areas, which are written in turn: each begins with the number of the
// version, the length of the text, and a sum of both and the text.
const (
	recordHead = 16
	lengthAt   = 8
	sumAt      = 12
)

// area returns one of the two areas of a record.
func (m *Memory) area(r Record, i int) []byte {
	at := recordsOffset + (2*int(r)+i)*recordSize
	return m.mem[at : at+recordSize]
}

// Read returns a copy of a record, nil if it was never written. It wraps ErrDamaged if
// neither area makes sense.
func (m *Memory) Read(r Record) ([]byte, error) {
	text, _, _, err := m.newest(r)
	return text, err
}

// newest returns the newest version of a record, its number, and the area that it is in.
func (m *Memory) newest(r Record) (text []byte, number uint64, in int, err error) {
	in, written := 1, false
	for i := range 2 {
		a := m.area(r, i)
		n := binary.NativeEndian.Uint64(a)
		length := binary.NativeEndian.Uint32(a[lengthAt:])
		written = written || n != 0 || length != 0
		if n <= number || length > MaxRecord {
			continue
		}
		t := append([]byte{}, a[recordHead:recordHead+length]...)
		if sumOf(n, t) == binary.NativeEndian.Uint32(a[sumAt:]) {
			text, number, in = t, n, i
		}
	}
	if text == nil && written {
		return nil, 0, in, fmt.Errorf("%w: a record has no whole version", ErrDamaged)
	}
	return text, number, in, nil
}

// Write writes a record, in one thread at a time. An error says that it is too long.
func (m *Memory) Write(r Record, text []byte) error {
	if len(text) > MaxRecord {
		return fmt.Errorf("a record of %d bytes, of which there may be %d", len(text), MaxRecord)
	}
	_, number, in, _ := m.newest(r)
	a := m.area(r, 1-in)
	// Killed here, the other area is the newest; the sum tells.
	binary.NativeEndian.PutUint64(a, number+1)
	binary.NativeEndian.PutUint32(a[lengthAt:], uint32(len(text)))
	copy(a[recordHead:], text)
	binary.NativeEndian.PutUint32(a[sumAt:], sumOf(number+1, text))
	return nil
}

func sumOf(number uint64, text []byte) uint32 {
	var head [12]byte
	binary.NativeEndian.PutUint64(head[:], number)
	binary.NativeEndian.PutUint32(head[8:], uint32(len(text)))
	return crc32.Update(crc32.ChecksumIEEE(head[:]), crc32.IEEETable, text)
}
