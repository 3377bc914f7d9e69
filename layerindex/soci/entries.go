package soci

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
)

// The fields of a FileMetadata.
const (
	entryName = iota
	entryType
	entryOff
	entrySize
	entryLink
	entryMode
	entryUID
	entryGID
	entryUser
	entryGroup
	entryTime
	entryMajor
	entryMinor
	entryRecords
	entryFields
)

// The fields of an Xattr, which is a pax record.
const (
	recordKey = iota
	recordValue
	recordFields
)

const (
	tarBlock    = 512
	xattrPrefix = "SCHILY.xattr."
	// sparsePrefix is what the records of GNU's sparse files in pax form begin with.
	sparsePrefix = "GNU.sparse."
	// maxRecords is how many bytes the records of an entry may have: those of a tar
	// that can be read have no more.
	maxRecords = 1 << 20
)

// typeNames are what ztocs call the types of entries, from layerindex.TypeReg on.
var typeNames = [...]string{"reg", "hardlink", "symlink", "char", "block", "dir", "fifo"}

// An entryReader reads the entries of a ztoc in their order.
type entryReader struct {
	z     *ztoc
	entry layerindex.Entry
	end   int64 // of the content of the entry before, and its padding
}

// read reads entry i. It is valid until the next one is read. What is wrong with it is
// named without its name.
func (r *entryReader) read(i int) (*layerindex.Entry, error) {
	t := r.z.entries.table(i)
	e := &r.entry
	*e = layerindex.Entry{
		Name:   string(t.bytes(entryName)),
		Mode:   uint32(t.int64(entryMode) & 0o7777),
		UID:    t.uint32(entryUID),
		GID:    t.uint32(entryGID),
		Xattrs: e.Xattrs[:0],
	}
	kind, link := string(t.bytes(entryType)), t.bytes(entryLink)
	off, size := t.int64(entryOff), t.int64(entrySize)
	at := t.bytes(entryTime)
	major, minor := t.int64(entryMajor), t.int64(entryMinor)
	if err := r.z.f.err; err != nil {
		return e, err
	}
	n := slices.Index(typeNames[:], kind)
	if n < 0 {
		return e, fmt.Errorf("unknown type %.20q", kind)
	}
	e.Type = layerindex.TypeReg + layerindex.Type(n)
	switch e.Type {
	case layerindex.TypeLink, layerindex.TypeSymlink:
		// Others may have one too: buildah's whiteouts do.
		e.Linkname = string(link)
	case layerindex.TypeChar, layerindex.TypeBlock:
		if major < 0 || major > math.MaxUint32 || minor < 0 || minor > math.MaxUint32 {
			return e, fmt.Errorf("device number %d:%d is out of range", major, minor)
		}
		e.Major, e.Minor = uint32(major), uint32(minor)
	case layerindex.TypeReg:
		e.Off, e.Size = off, size
	}
	// The sizes of sparse files, which are refused by their records, fit nowhere.
	if err := r.readRecords(e, t.vector(entryRecords)); err != nil {
		return e, err
	}
	if err := r.place(off, e.Size); err != nil {
		return e, err
	}
	if e.Type == layerindex.TypeReg && e.Size == 0 && strings.HasSuffix(e.Name, "/") {
		// As for package tarscan.
		e.Type, e.Off = layerindex.TypeDir, 0
	}
	if err := tarscan.CheckNames(e.Type, e.Name, e.Linkname); err != nil {
		return e, err
	}
	return e, readTime(e, at)
}

// place checks that the next entry has its header at or behind the end of the one
// before, and its content in the tar.
func (r *entryReader) place(off, size int64) error {
	if off%tarBlock != 0 || off < r.end+tarBlock || off > r.z.tarSize || size < 0 || size > r.z.tarSize-off {
		return fmt.Errorf("%d bytes at %d of %d, behind an entry that ends at %d", size, off, r.z.tarSize, r.end)
	}
	r.end = off + (size+tarBlock-1)/tarBlock*tarBlock
	return nil
}

// readTime reads the time of modification. SOCI writes none for years that RFC 3339
// cannot name, and local mean time without its seconds.
func readTime(e *layerindex.Entry, text []byte) error {
	if len(text) == 0 {
		return fmt.Errorf("%w: no time", layerindex.ErrLossy)
	}
	var t time.Time
	if err := t.UnmarshalText(text); err != nil {
		return fmt.Errorf("time %.40q", text)
	}
	if _, zone := t.Zone(); zone%(15*60) != 0 {
		return fmt.Errorf("%w: time %s is of an odd zone", layerindex.ErrLossy, text)
	}
	e.ModSec, e.ModNsec = t.Unix(), uint32(t.Nanosecond())
	return nil
}

// readRecords reads the attributes, which are among the pax records of the entry, all
// of them as the tar has them.
func (r *entryReader) readRecords(e *layerindex.Entry, records vector) error {
	total := 0
	for i := range records.n {
		record := records.table(i)
		key, value := string(record.bytes(recordKey)), record.bytes(recordValue)
		if err := r.z.f.err; err != nil {
			return err
		}
		if total += len(key) + len(value); total > maxRecords {
			return fmt.Errorf("pax records of more than %d bytes", maxRecords)
		}
		if strings.HasPrefix(key, sparsePrefix) {
			return fmt.Errorf("%w: a sparse file without its map", layerindex.ErrLossy)
		}
		if name, ok := strings.CutPrefix(key, xattrPrefix); ok {
			e.Xattrs = append(e.Xattrs, layerindex.Xattr{Name: name, Value: string(value)})
		}
	}
	slices.SortFunc(e.Xattrs, func(a, b layerindex.Xattr) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(e.Xattrs); i++ {
		if e.Xattrs[i].Name == e.Xattrs[i-1].Name {
			return fmt.Errorf("attribute %.64q comes twice", e.Xattrs[i].Name)
		}
	}
	return r.z.f.err
}
