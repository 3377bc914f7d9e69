package layerindex

import "iter"

// A Type is the kind of a tar entry, by its typeflag in the tar.
type Type byte

// The kinds of entries that an index holds. A contiguous file (typeflag 7)
// and the NUL typeflag of old tars are TypeReg; an old tar's directory, a
// file whose name ends in a slash, is TypeDir.
const (
	TypeReg     Type = '0'
	TypeLink    Type = '1' // hard link to the entry called Linkname
	TypeSymlink Type = '2'
	TypeChar    Type = '3'
	TypeBlock   Type = '4'
	TypeDir     Type = '5'
	TypeFifo    Type = '6'
)

// An Extent is a run of data in a sparse file: Size bytes at Off of the file.
type Extent struct {
	Off, Size int64
}

// An Xattr is one extended attribute. Both parts are any bytes; Name has no
// NUL.
type Xattr struct {
	Name, Value string
}

// An Entry describes one member of a layer's tar, as the tar has it: names are not
// cleaned, and whiteouts are entries like any other. Package fs says what a stack of
// layers means.
type Entry struct {
	Name     string // any bytes but NUL
	Linkname string // target of a symlink or hard link
	Type     Type
	Mode     uint32 // permission, setuid, setgid and sticky bits: 07777
	UID, GID uint32
	// Size is the length of the file's content, holes included. 0 unless
	// TypeReg.
	Size int64
	// ModSec and ModNsec are the time of modification: seconds since 1970
	// (may be negative) and nanoseconds, 0 to 999999999, to be added.
	ModSec       int64
	ModNsec      uint32
	Major, Minor uint32 // of TypeChar and TypeBlock
	Xattrs       []Xattr
	// Off is the offset of the content in the uncompressed layer.
	Off int64
	// Sparse, if not nil, says that the content is the extents in file
	// order, stored one behind the other from Off, and zeros elsewhere. It
	// is not nil but empty for a file that is one hole.
	Sparse []Extent
	// Digest is the SHA-256 of the content of a regular file that is not
	// sparse, if HasDigest.
	Digest    [32]byte
	HasDigest bool
}

// Entries is a sequence of a layer's entries in the order of the tar. An *Entry and its
// slices are valid until the next one comes, its strings for good.
type Entries = iter.Seq[*Entry]
