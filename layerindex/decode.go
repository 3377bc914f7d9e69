package layerindex

import (
	"fmt"
	"io"
	"math"

	"github.com/imgfs/imgfs/layerindex/internal/column"
)

// An entryDecoder is the state of one pass over the columns of a listing.
type entryDecoder struct {
	cur     [numColumns]column.Cursor
	digests io.Reader // nil if they are left out
	seen    int       // entries, so far
	flagged int64     // those with a digest
	name    []byte
	link    []byte
	sparse  []Extent // of the entry in hand
	sec     int64
	end     int64
	limit   int64 // of offsets in the tar
}

func (d *Listing) decoder(drain bool) *entryDecoder {
	w := &entryDecoder{limit: d.tarSize}
	for i := range w.cur {
		w.cur[i] = d.cols[i].Cursor(drain)
	}
	return w
}

// done reports what the columns have behind the values of the last entry.
func (w *entryDecoder) done() error {
	for i := range w.cur {
		if n := w.cur[i].Rest(); n != 0 {
			return fmt.Errorf("%w: entries: column %d has %d bytes too many", ErrIndex, i, n)
		}
	}
	return nil
}

// next decodes one entry.
func (w *entryDecoder) next(d *Listing, e *Entry) error {
	c := &w.cur
	w.seen++
	flags := c[colFlags].Byte()
	if flags&flagType >= byte(len(typeCodes)) {
		return fmt.Errorf("type code %d", flags&flagType)
	}
	*e = Entry{Type: Type(typeCodes[flags&flagType])}
	if !flagsFit(flags, e.Type) {
		return fmt.Errorf("flags %#x", flags)
	}

	shared := int(c[colShared].Small(uint64(len(w.name))))
	w.name = append(w.name[:shared], c[colRest].Bytes(c[colRestLen].Int())...)
	w.link = nil
	if e.Type == TypeLink || e.Type == TypeSymlink {
		w.link = c[colLink].Bytes(c[colLinkLen].Int())
	}
	e.Mode = uint32(c[colMode].Small(0o7777))
	e.UID = uint32(c[colUID].Small(math.MaxUint32))
	e.GID = uint32(c[colGID].Small(math.MaxUint32))
	w.sec += c[colModSec].Varint()
	e.ModSec, e.ModNsec = w.sec, uint32(c[colModNsec].Small(999_999_999))
	if e.Type == TypeChar || e.Type == TypeBlock {
		e.Major = uint32(c[colDevice].Small(math.MaxUint32))
		e.Minor = uint32(c[colDevice].Small(math.MaxUint32))
	}
	if flags&flagXattrs != 0 {
		n := c[colXattr].Uvarint()
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
		if c[i].Err != nil {
			return fmt.Errorf("column %d: %w", i, c[i].Err)
		}
	}
	return nil
}

// flagsFit reports whether an entry of a type may have these flags.
func flagsFit(flags byte, t Type) bool {
	content := flags & (flagSparse | flagDigest)
	return flags&^flagsKnown == 0 && content != flagSparse|flagDigest && (content == 0 || t == TypeReg)
}

// content decodes what only regular files have.
func (w *entryDecoder) content(flags byte, e *Entry) error {
	c := &w.cur
	e.Size = int64(c[colSize].Small(math.MaxInt64))
	gap := int64(c[colGap].Small(uint64(w.limit / tarBlock)))
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
	return w.digest(flags, e)
}

// digest takes the digest of a file's content, if there is one.
func (w *entryDecoder) digest(flags byte, e *Entry) error {
	has := flags&flagDigest != 0
	if has {
		w.flagged++
	}
	switch {
	case w.digests == nil:
	case has:
		e.HasDigest = true
		if _, err := io.ReadFull(w.digests, e.Digest[:]); err != nil {
			return err
		}
	case e.Size == 0 && e.Sparse == nil:
		e.Digest, e.HasDigest = emptyDigest, true
	}
	return nil
}

// extents decodes the map of a sparse file and returns its stored size.
func (w *entryDecoder) extents(e *Entry) (int64, error) {
	c := &w.cur[colTables]
	n := c.Length() // an extent takes two bytes at least
	w.sparse = w.sparse[:0]
	if w.sparse == nil {
		w.sparse = []Extent{} // not nil: it says that the file is sparse
	}
	var at, stored int64
	for range n {
		off, size := c.Small(math.MaxInt64), c.Small(math.MaxInt64)
		if c.Err != nil {
			return 0, c.Err
		}
		if off > uint64(e.Size-at) || size > uint64(e.Size-at)-off {
			return 0, fmt.Errorf("extent past the end of a file of %d bytes", e.Size)
		}
		w.sparse = append(w.sparse, Extent{Off: at + int64(off), Size: int64(size)})
		at += int64(off + size)
		stored += int64(size)
	}
	e.Sparse = w.sparse
	return stored, nil
}
