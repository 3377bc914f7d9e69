//go:build linux

package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// A directory's stream is ".", "..", and the children in the tree's order.
// The offset that goes with an entry is the position of the next one, so it
// holds for any buffer size and for ever.

// ReadDir lists names.
func (r *rawFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(e fuse.DirEntry, _ fs.Node, _ bool) bool {
		return out.AddDirEntry(e)
	})
}

// ReadDirPlus lists names with their attributes. "." and ".." have none: the
// kernel does not look for them.
func (r *rawFS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(e fuse.DirEntry, n fs.Node, dots bool) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if !dots {
			r.fillEntry(n, entry)
		}
		return true
	})
}

// list calls add for each entry from a position on until it returns false.
func (r *rawFS) list(in *fuse.ReadIn, add func(e fuse.DirEntry, n fs.Node, dots bool) bool) fuse.Status {
	dir, ok := r.tree.Node(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	if !isDir(dir) {
		return fuse.ENOTDIR
	}
	end := uint64(dir.NumChildren()) + 2
	for pos := in.Offset; pos < end; pos++ {
		var name string
		var n fs.Node
		switch pos {
		case 0:
			name, n = ".", dir
		case 1:
			name, n = "..", dir.Parent()
		default:
			name, n = dir.ChildAt(int(pos - 2))
		}
		e := fuse.DirEntry{Name: name, Mode: n.Mode(), Ino: n.Ino(), Off: pos + 1}
		if !add(e, n, pos < 2) {
			break
		}
	}
	return fuse.OK
}
