//go:build linux

package fusefs

import (
	"math"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// treeFacts are what is known of a tree as a whole.
type treeFacts struct {
	blocks uint64 // of blockSize bytes, in all regular files
	files  uint64 // how many regular files there are
	// largest is the size of the largest of them, in bytes.
	largest int64
	xattrs  bool // whether any inode has an extended attribute
	acls    bool // whether any of them is a POSIX ACL
	// names has the names of attributes that are neither user.* nor trusted.*.
	names map[string]bool
}

// factsOf looks at each inode once. Sizes are claims, so their sum may not
// fit: it stops at the largest that statfs(2) can show.
func factsOf(t *fs.Tree) treeFacts {
	s := treeFacts{names: map[string]bool{}}
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

// capabilityAttr has the capabilities of a program. Differs of containers look for it in every
// file, and some take it for an error that it is not supported: continuity before 0.5, which
// containerd has before 2.3, and BuildKit.
const capabilityAttr = "security.capability"

const aclPrefix = "system.posix_acl_"

// isFree reports whether a name is in a namespace where names mean nothing to the
// system.
func isFree(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// missing returns the errno for an attribute that an inode lacks. If a name means
// something to the system and no inode of the tree has it, it is not supported, as
// on any file system that knows nothing of it.
func (s *treeFacts) missing(name string) fuse.Status {
	switch {
	case isFree(name), s.names[name]:
		return fuse.ENODATA
	case s.acls && strings.HasPrefix(name, aclPrefix):
		// The kernel takes another error for one of its check of permissions.
		return fuse.ENODATA
	}
	return fuse.Status(unix.EOPNOTSUPP)
}
