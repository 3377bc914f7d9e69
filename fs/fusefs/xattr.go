package fusefs

import (
	"math"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// A summary is what is known of a tree as a whole.
type summary struct {
	blocks uint64 // of blockSize bytes, in all regular files
	xattrs bool   // whether any inode has an extended attribute
	acls   bool   // whether any of them is a POSIX ACL
}

// summarize looks at each inode once. Sizes are claims, so their sum may not
// fit: it stops at the largest that statfs(2) can show.
func summarize(t *fs.Tree) summary {
	var s summary
	for ino := uint64(1); ino <= uint64(t.Len()); ino++ {
		n, ok := t.Node(ino)
		if !ok {
			continue
		}
		if a := n.Attr(); a.Mode&unix.S_IFMT == unix.S_IFREG {
			s.blocks += (uint64(a.Size) + blockSize - 1) / blockSize
			s.blocks = min(s.blocks, math.MaxInt64/blockSize)
		}
		for _, x := range n.Xattrs() {
			s.xattrs = true
			s.acls = s.acls || strings.HasPrefix(x.Name, "system.posix_acl_")
		}
	}
	return s
}

// GetXAttr is ENOSYS where the whole tree has no attribute: the kernel then
// stops asking, and its callers see EOPNOTSUPP.
func (r *rawFS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !r.contents.xattrs {
		return 0, fuse.ENOSYS
	}
	n, ok := r.tree.Node(h.NodeId)
	if !ok {
		return 0, fuse.Status(unix.ESTALE)
	}
	for _, x := range n.Xattrs() {
		if x.Name == name {
			if copy(dest, x.Value) < len(x.Value) {
				return uint32(len(x.Value)), fuse.ERANGE
			}
			return uint32(len(x.Value)), fuse.OK
		}
	}
	return 0, fuse.ENODATA
}

// ListXAttr is never ENOSYS: programs that list before they get, and stop at
// any error, work on every tree.
func (r *rawFS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, ok := r.tree.Node(h.NodeId)
	if !ok {
		return 0, fuse.Status(unix.ESTALE)
	}
	size := 0
	for _, x := range n.Xattrs() {
		if !listed(x.Name, h.Uid) {
			continue
		}
		if size+len(x.Name) < len(dest) {
			copy(dest[size:], x.Name)
			dest[size+len(x.Name)] = 0
		}
		size += len(x.Name) + 1
	}
	if size > len(dest) {
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}

// listed reports whether a caller is told of a name. The kernel refuses a
// list with an empty name in it, and hides the values of trusted attributes
// from everybody but root; disk file systems do not even list them.
func listed(name string, uid uint32) bool {
	return name != "" && (uid == 0 || !strings.HasPrefix(name, "trusted."))
}
