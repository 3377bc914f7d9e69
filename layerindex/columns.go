package layerindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The columns of the entries section: docs/index-format.md, "Kind 1".
const (
	colFlags = iota
	colShared
	colRestLen
	colRest
	colLinkLen
	colLink
	colMode
	colUID
	colGID
	colModSec
	colModNsec
	colSize
	colGap
	colDevice
	colXattr
	colTables
	numColumns
)

const (
	flagType   = 0x07
	flagXattrs = 0x08
	flagSparse = 0x10
	flagDigest = 0x20
	flagsKnown = flagType | flagXattrs | flagSparse | flagDigest
)

// typeCodes lists the types by their code in the flags column.
const typeCodes = "0123456"

// tarBlock is the unit that a tar's contents are aligned to.
const tarBlock = 512

func roundUp(n int64) int64 { return (n + tarBlock - 1) &^ (tarBlock - 1) }

// storedSize returns how many bytes of the tar an entry's content takes.
func (e *Entry) storedSize() int64 {
	if e.Sparse == nil {
		return e.Size
	}
	var n int64
	for _, x := range e.Sparse {
		n += x.Size
	}
	return n
}

// A columnWriter collects the entries of a layer, column by column.
type columnWriter struct {
	cols    [numColumns][]byte
	sets    []byte         // the table of attribute sets, without its count
	setNum  map[string]int // encoded set → its number
	sparse  []byte
	digests []byte
	n       int64

	lastName string
	lastSec  int64
	end      int64 // of the last content
}

func (w *columnWriter) uvarint(col int, v uint64) {
	w.cols[col] = binary.AppendUvarint(w.cols[col], v)
}

// add appends one entry. It refuses what the format has no room for.
func (w *columnWriter) add(e *Entry) error {
	code := int(e.Type) - '0'
	if code < 0 || code >= len(typeCodes) {
		return fmt.Errorf("entry %q: type %q", e.Name, e.Type)
	}
	flags := byte(code)
	if len(e.Xattrs) > 0 {
		flags |= flagXattrs
		w.uvarint(colXattr, uint64(w.attrSet(e.Xattrs)))
	}
	if e.Type == TypeReg {
		if err := w.addContent(e, &flags); err != nil {
			return err
		}
	}
	w.cols[colFlags] = append(w.cols[colFlags], flags)
	w.addName(e.Name)
	if e.Type == TypeLink || e.Type == TypeSymlink {
		w.uvarint(colLinkLen, uint64(len(e.Linkname)))
		w.cols[colLink] = append(w.cols[colLink], e.Linkname...)
	}
	w.uvarint(colMode, uint64(e.Mode))
	w.uvarint(colUID, uint64(e.UID))
	w.uvarint(colGID, uint64(e.GID))
	w.cols[colModSec] = binary.AppendVarint(w.cols[colModSec], e.ModSec-w.lastSec)
	w.lastSec = e.ModSec
	w.uvarint(colModNsec, uint64(e.ModNsec))
	if e.Type == TypeChar || e.Type == TypeBlock {
		w.uvarint(colDevice, uint64(e.Major))
		w.uvarint(colDevice, uint64(e.Minor))
	}
	w.n++
	return nil
}

// addContent appends what only regular files have.
func (w *columnWriter) addContent(e *Entry, flags *byte) error {
	gap := e.Off - roundUp(w.end)
	if gap < 0 || gap%tarBlock != 0 || e.Size < 0 {
		return fmt.Errorf("entry %q: content at %d behind one that ends at %d", e.Name, e.Off, w.end)
	}
	w.uvarint(colSize, uint64(e.Size))
	w.uvarint(colGap, uint64(gap/tarBlock))
	w.end = e.Off + e.storedSize()
	if e.Sparse != nil {
		*flags |= flagSparse
		w.sparse = binary.AppendUvarint(w.sparse, uint64(len(e.Sparse)))
		var at int64
		for _, x := range e.Sparse {
			w.sparse = binary.AppendUvarint(w.sparse, uint64(x.Off-at))
			w.sparse = binary.AppendUvarint(w.sparse, uint64(x.Size))
			at = x.Off + x.Size
		}
	} else if e.HasDigest {
		*flags |= flagDigest
		w.digests = append(w.digests, e.Digest[:]...)
	}
	return nil
}

func (w *columnWriter) addName(name string) {
	shared := 0
	for shared < len(name) && shared < len(w.lastName) && name[shared] == w.lastName[shared] {
		shared++
	}
	w.uvarint(colShared, uint64(shared))
	w.uvarint(colRestLen, uint64(len(name)-shared))
	w.cols[colRest] = append(w.cols[colRest], name[shared:]...)
	w.lastName = name
}

// attrSet returns the number of a set of attributes in the table.
func (w *columnWriter) attrSet(xs []Xattr) int {
	set := binary.AppendUvarint(nil, uint64(len(xs)))
	for _, x := range xs {
		for _, s := range []string{x.Name, x.Value} {
			set = binary.AppendUvarint(set, uint64(len(s)))
			set = append(set, s...)
		}
	}
	if n, ok := w.setNum[string(set)]; ok {
		return n
	}
	if w.setNum == nil {
		w.setNum = map[string]int{}
	}
	n := len(w.setNum)
	w.setNum[string(set)] = n
	w.sets = append(w.sets, set...)
	return n
}

// bytes returns the decoded form of the section.
func (w *columnWriter) bytes() []byte {
	tables := binary.AppendUvarint(nil, uint64(len(w.setNum)))
	tables = append(tables, w.sets...)
	w.cols[colTables] = append(tables, w.sparse...)
	var out []byte
	for _, c := range w.cols {
		out = binary.AppendUvarint(out, uint64(len(c)))
	}
	for _, c := range w.cols {
		out = append(out, c...)
	}
	return out
}

// columns is the decoded entries section, ready to be walked.
type columns struct {
	cols    [numColumns][]byte // colTables begins with the sparse maps
	sets    [][]Xattr
	digests []byte // nil if they are left out
	n       int
	tarSize int64 // bounds every offset
}

var errShort = errors.New("ends too early")

// A cursor takes values from the front of a column. The first failure sticks.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) uvarint() uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return uint64(v)
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
	if v > uint64(len(c.b)) {
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

func (c *cursor) svarint() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.err = errShort
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

// newColumns splits a decoded entries section into its columns.
func newColumns(b, digests []byte, n int, tarSize int64) (*columns, error) {
	d := &columns{digests: digests, n: n, tarSize: tarSize}
	c := cursor{b: b}
	var lens [numColumns]int
	for i := range lens {
		lens[i] = int(c.small(uint64(len(b))))
	}
	for i, l := range lens {
		d.cols[i] = c.bytes(l)
	}
	if c.err != nil || len(c.b) != 0 || len(d.cols[colFlags]) != n {
		return nil, fmt.Errorf("%w: entries: columns", ErrIndex)
	}
	t := cursor{b: d.cols[colTables]}
	for sets := t.length(); len(d.sets) < sets && t.err == nil; {
		var set []Xattr
		for n := t.length(); len(set) < n && t.err == nil; {
			set = append(set, Xattr{Name: string(t.bytes(t.length())), Value: string(t.bytes(t.length()))})
		}
		d.sets = append(d.sets, set)
	}
	if t.err != nil {
		return nil, fmt.Errorf("%w: entries: attributes: %w", ErrIndex, t.err)
	}
	d.cols[colTables] = t.b
	return d, nil
}

// A walker is the state of one pass over the columns.
type walker struct {
	cur     [numColumns]cursor
	digests []byte
	name    []byte
	link    []byte
	sec     int64
	end     int64
	limit   int64 // of offsets in the tar
}

// What a walk makes of names and targets.
const (
	withStrings = true
	noStrings   = false // they are left empty, which is cheap: for checking
)

// entries returns the entries whose name contains a word. They must have been
// walked without an error before.
func (d *columns) entries(word string) Entries {
	return func(yield func(*Entry) bool) { _ = d.walk(withStrings, word, yield) }
}

// walk hands out the entries whose name contains a word, until yield returns
// false.
func (d *columns) walk(strings bool, word string, yield func(*Entry) bool) error {
	w := walker{digests: d.digests, limit: d.tarSize}
	for i := range w.cur {
		w.cur[i].b = d.cols[i]
	}
	var e Entry
	var pool stringPool
	contains := []byte(word)
	for i := range d.n {
		if err := w.next(d, &e); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrIndex, i, err)
		}
		if word != "" && !bytes.Contains(w.name, contains) {
			continue
		}
		if strings {
			e.Name, e.Linkname = pool.own(w.name), pool.own(w.link)
		}
		if !yield(&e) {
			return nil
		}
	}
	return w.done()
}

// done reports what the columns have behind the values of the last entry.
func (w *walker) done() error {
	for i := range w.cur {
		if n := len(w.cur[i].b); n != 0 {
			return fmt.Errorf("%w: entries: column %d has %d bytes too many", ErrIndex, i, n)
		}
	}
	if n := len(w.digests); n != 0 {
		return fmt.Errorf("%w: %d bytes of content digests too many", ErrIndex, n)
	}
	return nil
}

// next decodes one entry.
func (w *walker) next(d *columns, e *Entry) error {
	c := &w.cur
	flags := c[colFlags].b[0]
	c[colFlags].b = c[colFlags].b[1:]
	if flags&flagType >= byte(len(typeCodes)) {
		return fmt.Errorf("type code %d", flags&flagType)
	}
	*e = Entry{Type: Type(typeCodes[flags&flagType])}
	if !flagsFit(flags, e.Type) {
		return fmt.Errorf("flags %#x", flags)
	}

	shared := int(c[colShared].small(uint64(len(w.name))))
	w.name = append(w.name[:shared], c[colRest].bytes(c[colRestLen].intValue())...)
	w.link = nil
	if e.Type == TypeLink || e.Type == TypeSymlink {
		w.link = c[colLink].bytes(c[colLinkLen].intValue())
	}
	e.Mode = uint32(c[colMode].small(0o7777))
	e.UID = uint32(c[colUID].small(math.MaxUint32))
	e.GID = uint32(c[colGID].small(math.MaxUint32))
	w.sec += c[colModSec].svarint()
	e.ModSec, e.ModNsec = w.sec, uint32(c[colModNsec].small(999_999_999))
	if e.Type == TypeChar || e.Type == TypeBlock {
		e.Major = uint32(c[colDevice].small(math.MaxUint32))
		e.Minor = uint32(c[colDevice].small(math.MaxUint32))
	}
	if flags&flagXattrs != 0 {
		n := c[colXattr].uvarint()
		if n >= uint64(len(d.sets)) {
			return fmt.Errorf("attribute set %d of %d", n, len(d.sets))
		}
		e.Xattrs = d.sets[n]
	}
	if e.Type == TypeReg {
		if err := w.content(flags, e); err != nil {
			return err
		}
	}
	for i := range c {
		if c[i].err != nil {
			return fmt.Errorf("column %d: %w", i, c[i].err)
		}
	}
	return nil
}

// flagsFit reports whether an entry of a type may have these flags.
func flagsFit(flags byte, t Type) bool {
	content := flags & (flagSparse | flagDigest)
	return flags&^flagsKnown == 0 && content != flagSparse|flagDigest && (content == 0 || t == TypeReg)
}

// intValue takes a value that is used as a length of another column.
func (c *cursor) intValue() int { return int(c.small(math.MaxInt32)) }

// content decodes what only regular files have.
func (w *walker) content(flags byte, e *Entry) error {
	c := &w.cur
	e.Size = int64(c[colSize].small(math.MaxInt64))
	gap := int64(c[colGap].small(uint64(w.limit / tarBlock)))
	e.Off = roundUp(w.end) + gap*tarBlock
	stored := e.Size
	if flags&flagSparse != 0 {
		var err error
		if stored, err = w.extents(e); err != nil {
			return err
		}
	}
	if e.Off > w.limit || stored > w.limit-e.Off {
		return fmt.Errorf("content at %d of %d bytes in a tar of %d", e.Off, stored, w.limit)
	}
	w.end = e.Off + stored
	if flags&flagDigest != 0 && w.digests != nil {
		if len(w.digests) < 32 {
			return errShort
		}
		e.Digest, e.HasDigest = [32]byte(w.digests), true
		w.digests = w.digests[32:]
	}
	return nil
}

// extents decodes the map of a sparse file and returns its stored size.
func (w *walker) extents(e *Entry) (int64, error) {
	c := &w.cur[colTables]
	n := c.length() // an extent takes two bytes at least
	e.Sparse = make([]Extent, 0, min(n, 1024))
	var at, stored int64
	for range n {
		off, size := c.small(math.MaxInt64), c.small(math.MaxInt64)
		if c.err != nil {
			return 0, c.err
		}
		if off > uint64(e.Size-at) || size > uint64(e.Size-at)-off {
			return 0, fmt.Errorf("extent past the end of a file of %d bytes", e.Size)
		}
		e.Sparse = append(e.Sparse, Extent{Off: at + int64(off), Size: int64(size)})
		at += int64(off + size)
		stored += int64(size)
	}
	return stored, nil
}
