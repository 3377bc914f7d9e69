package fs

import (
	iofs "io/fs"
	"strings"
	"syscall"
)

// Lookup finds the inode at a slash-separated path, any byte string but NUL.
// Paths begin at the root, with a slash or without; "" is the root, and the
// root's ".." is the root. Symlinks on the way are followed inside the tree,
// one at the end only if follow, or if a slash comes after it.
//
// Errors are *fs.PathError (of io/fs) with the syscall.Errno that the kernel
// gives: ENOENT, which is fs.ErrNotExist, ENOTDIR, ELOOP after 40 symlinks.
func (t *Tree) Lookup(name string, follow bool) (Node, error) {
	n, err := t.walk(name, follow)
	if err != 0 {
		return Node{}, &iofs.PathError{Op: "lookup", Path: name, Err: err}
	}
	return n, nil
}

func (t *Tree) walk(path string, follow bool) (Node, syscall.Errno) {
	n, links := t.Root(), 0
	for path != "" {
		c, rest, more := strings.Cut(path, "/")
		path = rest
		if n.Mode()&syscall.S_IFMT != syscall.S_IFDIR {
			return Node{}, syscall.ENOTDIR
		}
		switch c {
		case "", ".":
			continue
		case "..":
			n = n.Parent()
			continue
		}
		child, ok := n.Child(c)
		if !ok {
			return Node{}, syscall.ENOENT
		}
		if child.Mode()&syscall.S_IFMT != syscall.S_IFLNK || !more && !follow {
			n = child
			if more && path == "" { // a slash at the end
				path = "."
			}
			continue
		}
		if links++; links > maxFollow {
			return Node{}, syscall.ELOOP
		}
		target := child.Target()
		if target[0] == '/' {
			n = t.Root()
		}
		path = target
		if more {
			path += "/" + rest
		}
	}
	return n, 0
}
