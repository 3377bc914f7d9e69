package toc

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/layerindex"
)

// The members of an entry.
const (
	fieldType = iota
	fieldName
	fieldLinkName
	fieldMode
	fieldSize
	fieldUID
	fieldGID
	fieldModTime
	fieldDevMajor
	fieldDevMinor
	fieldXattrs
	fieldDigest
	fieldOffset
	fieldEndOffset
	fieldInnerOffset
	fieldChunkSize
	fieldChunkOffset
	fieldChunkDigest
)

var fieldNames = []string{
	fieldType: "type", fieldName: "name", fieldLinkName: "linkName", fieldMode: "mode", fieldSize: "size",
	fieldUID: "uid", fieldGID: "gid", fieldModTime: "modtime", fieldDevMajor: "devMajor", fieldDevMinor: "devMinor",
	fieldXattrs: "xattrs", fieldDigest: "digest", fieldOffset: "offset", fieldEndOffset: "endOffset",
	fieldInnerOffset: "innerOffset", fieldChunkSize: "chunkSize", fieldChunkOffset: "chunkOffset", fieldChunkDigest: "chunkDigest",
}

func fieldOf(key []byte) int {
	switch string(key) {
	case "type":
		return fieldType
	case "name":
		return fieldName
	case "linkName":
		return fieldLinkName
	case "mode":
		return fieldMode
	case "size":
		return fieldSize
	case "uid":
		return fieldUID
	case "gid":
		return fieldGID
	case "modtime":
		return fieldModTime
	case "devMajor":
		return fieldDevMajor
	case "devMinor":
		return fieldDevMinor
	case "xattrs":
		return fieldXattrs
	case "digest":
		return fieldDigest
	case "offset":
		return fieldOffset
	case "endOffset":
		return fieldEndOffset
	case "innerOffset":
		return fieldInnerOffset
	case "chunkSize":
		return fieldChunkSize
	case "chunkOffset":
		return fieldChunkOffset
	case "chunkDigest":
		return fieldChunkDigest
	}
	return -1
}

// field reads one member of an entry.
func (r *Reader) field() error {
	key, err := r.lex.key()
	if err != nil {
		return err
	}
	n := fieldOf(key)
	if err := once(&r.lex, &r.fields, n, key, fieldNames); err != nil {
		return err
	}
	if n < 0 {
		return r.lex.skip(0)
	}
	if null, err := r.lex.null(); err != nil || null {
		return err // as if it were not there
	}
	e := &r.entry
	switch n {
	case fieldType:
		return r.readType()
	case fieldName:
		return r.readName(&e.Name)
	case fieldLinkName:
		return r.readName(&e.Linkname)
	case fieldMode:
		mode, err := r.lex.number()
		e.Mode = uint32(mode & 07777)
		return err
	case fieldSize:
		return r.readSize(&e.Size)
	case fieldUID:
		return r.readOwner(&e.UID)
	case fieldGID:
		return r.readOwner(&e.GID)
	case fieldModTime:
		return r.readTime()
	case fieldDevMajor:
		return r.readDevice(&e.Major)
	case fieldDevMinor:
		return r.readDevice(&e.Minor)
	case fieldXattrs:
		return r.readXattrs()
	case fieldDigest:
		return r.readDigest(&e.Digest, &e.HasDigest)
	case fieldOffset:
		return r.readSize(&e.Offset)
	case fieldEndOffset:
		return r.readSize(&e.EndOffset)
	case fieldInnerOffset:
		return r.readSize(&e.InnerOffset)
	case fieldChunkSize:
		return r.readSize(&e.ChunkSize)
	case fieldChunkOffset:
		return r.readSize(&e.ChunkOffset)
	}
	return r.readDigest(&e.ChunkDigest, &e.HasChunkDigest)
}

func (r *Reader) readType() error {
	b, _, err := r.lex.text()
	if err != nil {
		return err
	}
	e := &r.entry
	switch string(b) {
	case "reg":
		e.Type = layerindex.TypeReg
	case "dir":
		e.Type = layerindex.TypeDir
	case "hardlink":
		e.Type = layerindex.TypeLink
	case "symlink":
		e.Type = layerindex.TypeSymlink
	case "char":
		e.Type = layerindex.TypeChar
	case "block":
		e.Type = layerindex.TypeBlock
	case "fifo":
		e.Type = layerindex.TypeFifo
	case "chunk":
		e.Type = typeChunk
	default:
		return r.lex.refuse(fmt.Sprintf("entry of type %q", b[:min(len(b), 64)]))
	}
	return nil
}

func (r *Reader) readName(to *string) error {
	b, lost, err := r.lex.text()
	if err != nil {
		return err
	}
	*to = r.pool.Own(b)
	r.entry.Lost = r.entry.Lost || lost
	return nil
}

// readSize reads a size or an offset.
func (r *Reader) readSize(to *int64) error {
	n, err := r.lex.number()
	if err == nil && (n < 0 || n > layerindex.MaxSize) {
		err = r.lex.refuse(fmt.Sprintf("size or offset %d is out of range", n))
	}
	*to = n
	return err
}

func (r *Reader) readOwner(to *uint32) error {
	n, err := r.lex.number()
	if err == nil && (n < math.MinInt32 || n > math.MaxUint32) {
		err = r.lex.refuse(fmt.Sprintf("owner %d is out of range", n))
	}
	*to = uint32(n)
	return err
}

func (r *Reader) readDevice(to *uint32) error {
	n, err := r.lex.number()
	if err == nil && (n < 0 || n > math.MaxUint32) {
		err = r.lex.refuse(fmt.Sprintf("device number %d is out of range", n))
	}
	*to = uint32(n)
	return err
}

// readTime reads the time of modification. An empty one and the zero time of Go stand
// for none, and that is 0 in the tar.
func (r *Reader) readTime() error {
	b, _, err := r.lex.text()
	if err != nil || len(b) == 0 {
		return err
	}
	var t time.Time
	if err := t.UnmarshalText(b); err != nil {
		return r.lex.refuse(fmt.Sprintf("%q is no time", b[:min(len(b), 64)]))
	}
	if t.IsZero() {
		return nil
	}
	r.entry.ModSec, r.entry.ModNsec = t.Unix(), uint32(t.Nanosecond())
	if r.entry.ModNsec != 0 {
		r.had |= layerindex.LossSubSecond
	}
	return nil
}

// readDigest reads a SHA-256 digest. An empty one is none.
func (r *Reader) readDigest(to *[32]byte, has *bool) error {
	b, _, err := r.lex.text()
	if err != nil || len(b) == 0 {
		return err
	}
	const prefix = "sha256:"
	if *has = len(b) == len(prefix)+64 && string(b[:len(prefix)]) == prefix && unhex(to, b[len(prefix):]); !*has {
		return r.lex.refuse(fmt.Sprintf("%q is not a sha256 digest, the only kind supported", b[:min(len(b), 80)]))
	}
	return nil
}

// unhex decodes 64 digits. A digest has no upper case.
func unhex(to *[32]byte, b []byte) bool {
	var bad byte
	for i := range to {
		hi, lo := digitOf[b[2*i]], digitOf[b[2*i+1]]
		bad |= hi | lo
		to[i] = hi<<4 | lo
	}
	return bad < 16
}

// digitOf has the value of each hexadecimal digit, and 255 for other bytes.
var digitOf = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

var strictBase64 = base64.StdEncoding.Strict()

// readXattrs reads an object whose values are in base64.
func (r *Reader) readXattrs() error {
	e := &r.entry
	if err := r.lex.take('{'); err != nil {
		return err
	}
	size := 0
	for first := true; ; first = false {
		more, err := r.lex.another(first, '}')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if err := r.readXattr(); err != nil {
			return err
		}
		x := e.Xattrs[len(e.Xattrs)-1]
		if size += len("19 SCHILY.xattr.=\n") + len(x.Name) + len(x.Value); size > maxXattrs {
			return r.lex.refuse(fmt.Sprintf("attributes of more than %d bytes", maxXattrs))
		}
	}
	slices.SortFunc(e.Xattrs, func(a, b layerindex.Xattr) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(e.Xattrs); i++ {
		if e.Xattrs[i].Name == e.Xattrs[i-1].Name {
			return r.lex.refuse(fmt.Sprintf("second attribute %q", e.Xattrs[i].Name))
		}
	}
	return nil
}

func (r *Reader) readXattr() error {
	b, lost, err := r.lex.text()
	if err != nil {
		return err
	}
	if strings.IndexByte(string(b), 0) >= 0 {
		return r.lex.refuse("NUL in the name of an attribute")
	}
	name := r.pool.Shared(b)
	r.entry.Lost = r.entry.Lost || lost
	if err := r.lex.take(':'); err != nil {
		return err
	}
	if b, _, err = r.lex.text(); err != nil {
		return err
	}
	r.value = slices.Grow(r.value[:0], base64.StdEncoding.DecodedLen(len(b)))
	n, err := strictBase64.Decode(r.value[:cap(r.value)], b)
	if err != nil {
		return r.lex.refuse(fmt.Sprintf("value of the attribute %q: %v", name, err))
	}
	if n == 0 {
		r.had |= layerindex.LossEmptyXattrs
	}
	r.entry.Xattrs = append(r.entry.Xattrs, layerindex.Xattr{Name: name, Value: r.pool.Shared(r.value[:n])})
	return nil
}
