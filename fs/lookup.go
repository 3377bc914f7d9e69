package fs

import (
	iofs "io/fs"
	"syscall"
)

// Lookup finds the inode at a slash-separated path, any byte string but NUL.
// Paths begin at the root, with a slash or without; "" is the root, and the
// root's ".." is the root. Symlinks on the way are followed inside the tree,
// one at the end only if follow, or if a slash comes after it.
//
// Errors are *fs.PathError (of io/fs) with the syscall.Errno that the kernel
// gives: ENOENT, which is fs.ErrNotExist, ENOTDIR, ELOOP after 40 symlinks. It is
// ELOOP too after 4,096 components.
func (t *Tree) Lookup(name string, follow bool) (Node, error) {
	n, err := t.walk(name, follow)
	if err != 0 {
		return Node{}, &iofs.PathError{Op: "lookup", Path: name, Err: err}
	}
	return n, nil
}

func (t *Tree) walk(path string, follow bool) (Node, syscall.Errno) {
	n, w := t.Root(), pathWalk{path: path}
	for {
		c, more, ok := w.next()
		switch {
		case !ok:
			return n, 0
		case w.tooLong() != nil:
			return Node{}, syscall.ELOOP
		case n.Mode()&syscall.S_IFMT != syscall.S_IFDIR:
			return Node{}, syscall.ENOTDIR
		case c == "" || c == ".":
			continue
		case c == "..":
			n = n.Parent()
			continue
		}
		child, ok := n.Child(c)
		if !ok {
			return Node{}, syscall.ENOENT
		}
		if child.Mode()&syscall.S_IFMT != syscall.S_IFLNK || !more && !follow {
			n = child
			continue
		}
		target := child.Target()
		if w.follow(target) != nil {
			return Node{}, syscall.ELOOP
		}
		if target[0] == '/' {
			n = t.Root()
		}
	}
}
