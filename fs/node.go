package fs

import (
	"iter"
	"slices"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

// A Node is one inode of a tree. The zero Node is not valid. Nodes of the
// same tree are comparable: hard links give equal Nodes.
type Node struct {
	t  *Tree
	id uint32
}

// Attr is what stat(2) shows of an inode.
type Attr struct {
	Mode         uint32 // st_mode: S_IFMT and 07777
	UID, GID     uint32
	Nlink        uint32 // of directories: 2 and one for each subdirectory
	Size         int64  // of a symlink the length of its target, of a directory 4096
	ModSec       int64
	ModNsec      uint32
	Major, Minor uint32
}

// Blocks returns st_blocks of an inode with the attributes, in units of 512 bytes: what
// du and ls -s add up. Holes count.
func (a Attr) Blocks() uint64 {
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFDIR:
		return (uint64(a.Size) + 511) / 512
	}
	return 0
}

// dirSize is the size that directories show, as most file systems do.
const dirSize = 4096

func (n Node) inode() *inode { return n.t.inodes.at(n.id) }

// Ino returns the inode number: stable over mounts of the same image.
func (n Node) Ino() uint64 { return uint64(n.id) + 1 }

// Attr returns the inode's attributes.
func (n Node) Attr() Attr { return n.inode().attr() }

func (in *inode) attr() Attr {
	a := Attr{
		Mode:    uint32(in.mode),
		UID:     in.uid,
		GID:     in.gid,
		Nlink:   in.nlink,
		Size:    in.size,
		ModSec:  in.modSec,
		ModNsec: in.modNsec,
	}
	if t := in.format(); t == syscall.S_IFCHR || t == syscall.S_IFBLK {
		a.Major, a.Minor = uint32(in.off>>32), uint32(in.off)
	}
	return a
}

// Mode returns Attr().Mode alone.
func (n Node) Mode() uint32 { return uint32(n.inode().mode) }

// format returns the S_IFMT part of the mode.
func (in *inode) format() uint32 { return uint32(in.mode) & syscall.S_IFMT }

func (in *inode) isDir() bool { return in.format() == syscall.S_IFDIR }

// dir returns the directory's record; other inodes are empty directories.
func (n Node) dir() dir {
	if in := n.inode(); in.isDir() && int(n.id) < n.t.count {
		return n.t.dirs[in.off]
	}
	return dir{}
}

// Parent returns the directory that holds a directory; the root's is itself.
// Other inodes can have several and give the root.
func (n Node) Parent() Node { return Node{n.t, n.dir().parent} }

// IsSparse reports whether the inode is of a file with holes.
func (n Node) IsSparse() bool { return n.t.extras[n.inode().extra].sparse != 0 }

// Data iterates over the runs of a regular file that are no holes, from byte off
// to end of the file, in their order. A file that is not sparse is one run, and an
// empty one none.
func (n Node) Data() iter.Seq2[int64, int64] {
	return func(yield func(off, end int64) bool) {
		in := n.inode()
		if in.format() != syscall.S_IFREG {
			return
		}
		x := n.t.extras[in.extra].sparse
		if x == 0 {
			if in.size > 0 {
				yield(0, in.size)
			}
			return
		}
		for _, run := range n.t.sparse[x-1] {
			if !yield(run.off, run.off+run.size) {
				return
			}
		}
	}
}

// Layer returns the position of the layer that has the content of a regular
// file, 0 for the base, and -1 for other inodes.
func (n Node) Layer() int {
	in := n.inode()
	if in.format() != syscall.S_IFREG {
		return -1
	}
	return int(in.layer)
}

// Extent returns where the content of a regular file lies in the uncompressed
// stream of its layer: from byte off to end. Of a sparse file only off is true,
// where its data begins. Extent means nothing for other inodes.
func (n Node) Extent() (off, end int64) {
	in := n.inode()
	return in.off, in.off + in.size
}

// Child finds a name in a directory. Inodes that are no directories have no
// children.
func (n Node) Child(name string) (Node, bool) {
	d := n.dir()
	lo, hi := d.first, d.first+d.count
	for lo < hi {
		mid := lo + (hi-lo)/2
		switch s := n.t.name(mid); {
		case s == name:
			return Node{n.t, n.t.names[mid].id}, true
		case s < name:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return Node{}, false
}

// name returns the name of a dirent.
func (t *Tree) name(i uint32) string {
	return t.text.counted(t.names[i].text)
}

// NumChildren returns the number of names in a directory, without . and ...
func (n Node) NumChildren() int { return int(n.dir().count) }

// ChildAt returns the name at position i, 0 to NumChildren()-1; names are in byte order.
func (n Node) ChildAt(i int) (string, Node) {
	at := n.dir().first + uint32(i)
	return n.t.name(at), Node{n.t, n.t.names[at].id}
}

// Children iterates over a directory in the order of ChildAt.
func (n Node) Children() iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		for i := range n.NumChildren() {
			if !yield(n.ChildAt(i)) {
				return
			}
		}
	}
}

// Target returns what a symlink holds, "" of other inodes.
func (n Node) Target() string {
	in := n.inode()
	if in.format() != syscall.S_IFLNK {
		return ""
	}
	return n.t.targets.at(in.off, in.size)
}

// Xattrs returns the extended attributes, sorted by name: those of the image's that
// Linux can have on an inode of this type. The slice is the caller's.
func (n Node) Xattrs() []layerindex.Xattr {
	return slices.Clone(n.t.xattrs[n.t.extras[n.inode().extra].xattrs])
}
