package layerindex

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/column"
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
	budget  *Budget
	cols    [numColumns]column.Column // colTables has the sparse maps alone
	sets    []string                  // the table of attribute sets, encoded
	setNum  map[string]int            // encoded set → its number
	set     []byte                    // the set in hand
	digests column.Column
	n       int64

	lastName string
	lastSec  int64
	end      int64 // of the last content
}

// add appends one entry. It refuses what the format has no room for, and what
// the budget has none for.
func (w *columnWriter) add(e *Entry) error {
	code := int(e.Type) - '0'
	if code < 0 || code >= len(typeCodes) {
		return fmt.Errorf("entry %q: type %q", e.Name, e.Type)
	}
	if w.n == MaxEntries {
		return entryError(e.Name, fmt.Errorf("%w: more than %d", ErrEntries, MaxEntries))
	}
	if err := w.budget.takeEntry(e); err != nil {
		return entryError(e.Name, err)
	}
	flags := byte(code)
	if len(e.Xattrs) > 0 {
		flags |= flagXattrs
		set, err := w.attrSet(e.Xattrs)
		if err != nil {
			return entryError(e.Name, err)
		}
		w.cols[colXattr].Uvarint(uint64(set))
	}
	if e.Type == TypeReg {
		if err := w.addContent(e, &flags); err != nil {
			return err
		}
	}
	w.cols[colFlags].Byte(flags)
	w.addName(e.Name)
	if e.Type == TypeLink || e.Type == TypeSymlink {
		w.cols[colLinkLen].Uvarint(uint64(len(e.Linkname)))
		w.cols[colLink].Text(e.Linkname)
	}
	w.cols[colMode].Uvarint(uint64(e.Mode))
	w.cols[colUID].Uvarint(uint64(e.UID))
	w.cols[colGID].Uvarint(uint64(e.GID))
	w.cols[colModSec].Varint(e.ModSec - w.lastSec)
	w.lastSec = e.ModSec
	w.cols[colModNsec].Uvarint(uint64(e.ModNsec))
	if e.Type == TypeChar || e.Type == TypeBlock {
		w.cols[colDevice].Uvarint(uint64(e.Major))
		w.cols[colDevice].Uvarint(uint64(e.Minor))
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
	w.cols[colSize].Uvarint(uint64(e.Size))
	w.cols[colGap].Uvarint(uint64(gap / tarBlock))
	w.end = e.Off + e.storedSize()
	switch {
	case e.Sparse != nil:
		*flags |= flagSparse
		maps := &w.cols[colTables]
		maps.Uvarint(uint64(len(e.Sparse)))
		var at int64
		for _, x := range e.Sparse {
			maps.Uvarint(uint64(x.Off - at))
			maps.Uvarint(uint64(x.Size))
			at = x.Off + x.Size
		}
	case e.HasDigest && e.Size > 0:
		// What is empty has a digest that everybody knows.
		*flags |= flagDigest
		if _, err := w.digests.Write(e.Digest[:]); err != nil {
			return err
		}
	}
	return nil
}

func (w *columnWriter) addName(name string) {
	shared := 0
	for shared < len(name) && shared < len(w.lastName) && name[shared] == w.lastName[shared] {
		shared++
	}
	w.cols[colShared].Uvarint(uint64(shared))
	w.cols[colRestLen].Uvarint(uint64(len(name) - shared))
	w.cols[colRest].Text(name[shared:])
	w.lastName = name
}

// attrSet returns the number of a set of attributes in the table. Equal sets
// are there once.
func (w *columnWriter) attrSet(xs []Xattr) (int, error) {
	w.set = binary.AppendUvarint(w.set[:0], uint64(len(xs)))
	for _, x := range xs {
		for _, s := range [...]string{x.Name, x.Value} {
			w.set = binary.AppendUvarint(w.set, uint64(len(s)))
			w.set = append(w.set, s...)
		}
	}
	if n, ok := w.setNum[string(w.set)]; ok {
		return n, nil
	}
	if err := w.budget.Take(attrsCost(xs)); err != nil {
		return 0, err
	}
	if w.setNum == nil {
		w.setNum = map[string]int{}
	}
	set, n := string(w.set), len(w.sets)
	w.setNum[set] = n
	w.sets = append(w.sets, set)
	return n, nil
}

// finish makes the last column whole and returns the length of the section,
// decoded. Nothing may be added any more.
func (w *columnWriter) finish() int64 {
	tables := &column.Column{}
	tables.Uvarint(uint64(len(w.sets)))
	for i, set := range w.sets {
		delete(w.setNum, set)
		tables.Text(set)
		w.sets[i] = ""
	}
	maps := &w.cols[colTables]
	tables.Pieces, tables.Size = append(tables.Pieces, maps.Pieces...), tables.Size+maps.Size
	*maps = *tables
	n := int64(len(w.lengths()))
	for i := range w.cols {
		n += w.cols[i].Size
	}
	return n
}

// lengths returns what the section begins with.
func (w *columnWriter) lengths() []byte {
	var b []byte
	for i := range w.cols {
		b = binary.AppendUvarint(b, uint64(w.cols[i].Size))
	}
	return b
}

// moveTo writes the section, decoded, and gives back what is written.
func (w *columnWriter) moveTo(to io.Writer) error {
	if _, err := to.Write(w.lengths()); err != nil {
		return err
	}
	for i := range w.cols {
		if err := w.cols[i].MoveTo(to); err != nil {
			return err
		}
	}
	return nil
}
