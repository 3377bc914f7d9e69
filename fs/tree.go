package fs

import (
	"github.com/imgfs/imgfs/layerindex"
)

// A Layer is one layer to merge.
type Layer struct {
	// Name is what messages call the layer: its digest.
	Name string
	// Entries are the entries of its tar, in their order. Merge ranges over
	// them twice.
	Entries layerindex.Entries
	// Marked, if not nil, are those of Entries whose name contains ".wh.".
	// Merge looks for them itself if it is not told.
	Marked layerindex.Entries
	// Count is how many entries there are, if that is known.
	Count int
	// Content has the bytes of the layer's regular files. The tree keeps it. If
	// it is nil they cannot be read.
	Content Content
	// Stable says that equal xattrs of Entries are the same slice, which does
	// not change any more.
	Stable bool
}

// A Tree is the merged, read-only view of an image's layers. It is immutable and
// safe for concurrent use.
//
// Everything lies in a few flat arrays; a Node is a position in them.
type Tree struct {
	inodes  paged[inode] // inode number n is at n-1; behind count those that only a Survey knows
	count   int          // inodes of the tree
	dirs    []dir
	names   []dirent // of all directories
	text    text     // the names, counted
	targets text
	extras  []extra
	xattrs  [][]layerindex.Xattr // sets, each sorted by name; the first is empty
	sparse  [][]extent           // of sparse files
	sources []source
}

// An inode is what the tree holds of every inode. There are many: it has no
// pointers, and what few inodes have is in Tree.extras.
type inode struct {
	size   int64 // as Attr.Size
	off    int64 // by type, see below
	modSec int64

	modNsec  uint32
	uid, gid uint32
	nlink    uint32
	extra    uint32 // position in extras, 0 for none
	mode     uint16 // all of st_mode
	layer    uint16 // position in sources, of a regular file
}

// What inode.off holds:
//
//	regular file  offset of the content in the uncompressed layer
//	directory     position in Tree.dirs (in a builder the parent's inode)
//	symlink       where the target is in Tree.targets
//	device        major<<32 | minor

// A dir says where the names of a directory are.
type dir struct {
	first, count uint32 // in Tree.names
	parent       uint32 // position of the inode
}

// A dirent is one name.
type dirent struct {
	text uint32 // where it is in Tree.text
	id   uint32 // position of the inode
}

// An extra is what few inodes have.
type extra struct {
	xattrs uint32 // position in Tree.xattrs
	sparse uint32 // position in Tree.sparse and one more, 0 if the file is not sparse
}

// An extent is a run of data in a sparse file.
type extent struct {
	off, size int64 // in the file
	out       int64 // where its data is, in the uncompressed layer
}

// A source is where the content of a layer's files comes from.
type source struct {
	name    string
	content Content
}

// Root returns the root directory; its Ino is 1.
func (t *Tree) Root() Node { return Node{t, 0} }

// Len returns the number of inodes. They are numbered 1 to Len.
func (t *Tree) Len() int { return t.count }

// Node returns the inode with a number.
func (t *Tree) Node(ino uint64) (Node, bool) {
	if ino == 0 || ino > uint64(t.count) {
		return Node{}, false
	}
	return Node{t, uint32(ino - 1)}, true
}
