package fs

import (
	"context"
	"iter"
)

// A pathNode is one path of a tree.
type pathNode struct {
	path string
	node Node
}

// All iterates over all paths of the tree, the root's "/" first: those of a
// directory in byte order, one after the other, then those of its directories.
// An inode with several names is there under each of them.
func (t *Tree) All() iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		if !yield("/", t.Root()) {
			return
		}
		for dirs := []pathNode{{"", t.Root()}}; len(dirs) > 0; {
			d := dirs[len(dirs)-1]
			dirs = dirs[:len(dirs)-1]
			for name, n := range d.node.Children() {
				path := d.path + "/" + name
				if !yield(path, n) {
					return
				}
				if n.inode().isDir() {
					dirs = append(dirs, pathNode{path, n})
				}
			}
		}
	}
}

// FindPaths sets the value of each key of paths, an inode number, to one of the
// inode's paths. It searches the tree, until ctx ends: inodes do not know their
// names.
func (t *Tree) FindPaths(ctx context.Context, paths map[uint64]string) {
	missing := len(paths)
	ended := canceled{ctx: ctx}
	if _, ok := paths[t.Root().Ino()]; ok {
		paths[t.Root().Ino()] = "/"
		missing--
	}
	// Unlike All this makes strings for directories and for what is found alone.
	for dirs := []pathNode{{"", t.Root()}}; len(dirs) > 0 && missing > 0; {
		d := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		for name, n := range d.node.Children() {
			if ended.now() {
				return
			}
			if p, ok := paths[n.Ino()]; ok && p == "" {
				paths[n.Ino()] = d.path + "/" + name
				missing--
			}
			if n.inode().isDir() {
				dirs = append(dirs, pathNode{d.path + "/" + name, n})
			}
		}
	}
}
