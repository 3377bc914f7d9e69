package explore

import (
	"slices"

	"github.com/imgfs/imgfs/fs"
)

// A linkSums counts inodes with several paths once in each directory above them.
type linkSums struct {
	seen, multi []uint64 // by inode number
	found       []linkName
}

// A linkName is a path of such an inode.
type linkName struct {
	node   fs.Node
	id     int32
	hidden bool
}

func newLinkSums() *linkSums { return &linkSums{} }

// note says that a path has an inode.
func (l *linkSums) note(n fs.Node) {
	at := int(n.Ino())
	if at/64 >= len(l.seen) {
		l.seen = append(l.seen, make([]uint64, at/64+1-len(l.seen)+1024)...)
		l.multi = append(l.multi, make([]uint64, len(l.seen)-len(l.multi))...)
	}
	if bits(l.seen).has(at) {
		bits(l.multi).add(at)
	}
	bits(l.seen).add(at)
}

// several reports whether an inode has several paths, and keeps this one.
func (l *linkSums) several(n fs.Node, id int32, hidden bool) bool {
	if !bits(l.multi).has(int(n.Ino())) {
		return false
	}
	l.found = append(l.found, linkName{n, id, hidden})
	return true
}

// addTo adds the sizes of inodes with several paths to each directory that they are below,
// once.
func (l *linkSums) addTo(t *pathTree) {
	if len(l.found) == 0 {
		return
	}
	slices.SortStableFunc(l.found, func(a, b linkName) int { return int(int64(a.node.Ino()) - int64(b.node.Ino())) })
	last := make(map[int32]uint64) // the inode that a directory has counted
	for _, f := range l.found {
		ino, size := f.node.Ino(), f.node.Attr().Size
		t.sums[f.id] = size
		for at := f.id; at != 0; {
			at = t.parent(at)
			if last[at] == ino || f.hidden && !t.hidden(at) {
				break
			}
			last[at] = ino
			t.sums[at] = addSizes(t.sums[at], size)
		}
	}
}
