//go:build linux

package fusefs

import (
	"math"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// A summary is what is known of a tree as a whole.
type summary struct {
	blocks uint64 // of blockSize bytes, in all regular files
	files  uint64 // how many regular files there are
	// largest is the size of the largest of them, in bytes.
	largest int64
	xattrs  bool // whether any inode has an extended attribute
	acls    bool // whether any of them is a POSIX ACL
	// names has the names of attributes that are neither user.* nor trusted.*.
	names map[string]bool
}

// summarize looks at each inode once. Sizes are claims, so their sum may not
// fit: it stops at the largest that statfs(2) can show.
func summarize(t *fs.Tree) summary {
	s := summary{names: map[string]bool{}}
	for ino := uint64(1); ino <= uint64(t.Len()); ino++ {
		n, ok := t.Node(ino)
		if !ok {
			continue
		}
		if a := n.Attr(); a.Mode&unix.S_IFMT == unix.S_IFREG {
			s.files++
			s.largest = max(s.largest, a.Size)
			s.blocks += (uint64(a.Size) + blockSize - 1) / blockSize
			s.blocks = min(s.blocks, math.MaxInt64/blockSize)
		}
		for _, x := range n.Xattrs() {
			s.xattrs = true
			if !isFree(x.Name) {
				s.names[x.Name] = true
				s.acls = s.acls || strings.HasPrefix(x.Name, aclPrefix)
			}
		}
	}
	return s
}

const aclPrefix = "system.posix_acl_"

// isFree reports whether a name is in one of the namespaces whose names nobody
// gives a meaning to.
func isFree(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// missing returns what a caller is told who asks for an attribute that is not
// there. One that means something to the system and that no inode of the tree
// has is not supported, as on any file system that knows nothing of it.
func (s *summary) missing(name string) fuse.Status {
	switch {
	case isFree(name), s.names[name]:
		return fuse.ENODATA
	case s.acls && strings.HasPrefix(name, aclPrefix):
		// The kernel takes another error for one of its check of permissions.
		return fuse.ENODATA
	}
	return fuse.Status(unix.EOPNOTSUPP)
}

// ownPrefix begins the names of the attributes that are the mount's own. Those
// of an image are hidden, also where the mount has none by that name: a digest
// that it does not know, or does not tell, is nobody else's to tell.
const ownPrefix = "user.imgfs."

// The attributes of regular files that say where their content comes from.
const (
	layerAttr  = ownPrefix + "layer"  // digest of the layer
	digestAttr = ownPrefix + "digest" // of the content
	offsetAttr = ownPrefix + "offset" // of the content in the uncompressed layer, decimal
)

// GetXAttr is never ENOSYS: the kernel would then not ask for our own attributes
// either, once any program had looked for an ACL. So a miss costs a request, 20
// us in place of 1.5. "ls -l" looks for two attributes of each file, which made
// it take five times as long in a tree of 100,000 files; but it asks no more
// when it is told that they are not supported, and then takes no longer than
// with ENOSYS. Reading and find ask for none.
func (r *rawFS) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n, ok := r.tree.Node(h.NodeId)
	if !ok {
		return 0, fuse.Status(unix.ESTALE)
	}
	value, ok, err := r.xattr(n, name, h.Uid)
	switch {
	case err != nil:
		return 0, r.failures.status(&fuse.Context{Caller: h.Caller, Cancel: cancel}, "getxattr "+name, n, err)
	case !ok:
		return 0, r.contents.missing(name)
	case len(value) > xattrMax:
		return 0, fuse.Status(unix.E2BIG)
	case copy(dest, value) < len(value):
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(len(value)), fuse.OK
}

// xattr returns the value of an attribute, if there is one by that name for a
// user.
func (r *rawFS) xattr(n fs.Node, name string, user uint32) (value string, ok bool, err error) {
	if strings.HasPrefix(name, ownPrefix) {
		return r.ownXattr(n, name, user)
	}
	if !r.contents.xattrs {
		return "", false, nil
	}
	for _, x := range n.Xattrs() {
		if x.Name == name {
			return x.Value, true, nil
		}
	}
	return "", false, nil
}

// ownXattr returns the value of an attribute that is not the image's.
func (r *rawFS) ownXattr(n fs.Node, name string, user uint32) (value string, ok bool, err error) {
	if n == r.tree.Root() {
		// It tells what others read, and where the cache is.
		if r.control == nil || user != 0 && user != r.owner {
			return "", false, nil
		}
		b, ok := r.control(name)
		return string(b), ok, nil
	}
	switch name {
	case layerAttr:
		layer, _, ok := n.Provenance()
		return layer.String(), ok, nil
	case offsetAttr:
		_, off, ok := n.Provenance()
		return strconv.FormatInt(off, 10), ok, nil
	case digestAttr:
		d, ok, err := n.ContentDigest()
		return d.String(), ok, err
	}
	return "", false, nil
}

// ListXAttr is never ENOSYS: programs that list before they get, and stop at
// any error, work on every tree.
func (r *rawFS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, ok := r.tree.Node(h.NodeId)
	if !ok {
		return 0, fuse.Status(unix.ESTALE)
	}
	size := 0
	add := func(name string) {
		if size+len(name) < len(dest) {
			copy(dest[size:], name)
			dest[size+len(name)] = 0
		}
		size += len(name) + 1
	}
	for _, name := range r.listedOwn(n) {
		add(name)
	}
	for _, x := range n.Xattrs() {
		if listed(x.Name, h.Uid) {
			add(x.Name)
		}
	}
	if size > len(dest) {
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}

// listedOwn returns the names of an inode's attributes that are not the
// image's, as far as they are to be listed.
func (r *rawFS) listedOwn(n fs.Node) []string {
	if !r.provenance || n.Mode()&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	// Who gets one that is listed because of an error is told of the error.
	if _, ok, err := n.ContentDigest(); ok || err != nil {
		return []string{layerAttr, digestAttr, offsetAttr}
	}
	return []string{layerAttr, offsetAttr}
}

// listed reports whether a caller is told of a name that the image has. The
// kernel refuses a list with an empty name in it, and hides the values of trusted
// attributes from everybody but root; disk file systems do not even list them.
func listed(name string, uid uint32) bool {
	return name != "" && !strings.HasPrefix(name, ownPrefix) && (uid == 0 || !strings.HasPrefix(name, "trusted."))
}
