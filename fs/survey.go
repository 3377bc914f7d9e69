package fs

import (
	iofs "io/fs"
	"strings"
	"syscall"
)

// A Survey tells what each layer of a tree does to its paths. A Builder that was asked
// for it makes it. It is immutable and safe for concurrent use.
//
// It compares the trees of the first layers with each other: what a layer has and takes
// away itself, or has and changes nothing, it does not tell. Layers are numbered from 0,
// the base. A layer that is left out because it is directly on itself does nothing.
type Survey struct {
	tree   *Tree
	names  linkTable
	paths  paged[surveyPath]
	events paged[surveyEvent]
	inodes paged[surveyInode]
	states paged[surveyState]
	layers []LayerChanges
	gone   paged[inode] // those that are not in the tree, until it has them behind its own
	place  []uint32     // by the builder's inode: position in the tree, or with goneInode behind its inodes
	given  []uint16     // layer of each inode of the tree
	dirs   []uint32     // path of each directory of the tree
}

// goneInode marks what is not in the tree.
const goneInode = 1 << 31

// A LayerChanges is what one layer does to the tree of those below it.
type LayerChanges struct {
	Added    Count // paths that were not there
	Replaced Count // paths that had another file: bytes are of the new ones
	Hidden   Count // paths that are gone, those below a directory too: bytes that no path has any more
	// Changed counts paths with other attributes: directories, and files that a hard link
	// of the layer is another name of.
	Changed int
	// Useless are the bytes that the layer brings, in Added and Replaced, and that no path
	// of the whole tree has: later layers have replaced or hidden them.
	Useless int64
}

// Content returns how many bytes of files the layer brings.
func (l LayerChanges) Content() int64 { return addBytes(l.Added.Bytes, l.Replaced.Bytes) }

// A Count counts paths, and bytes of the regular files that they have: those of an inode
// once, whatever names it has, and of a sparse file all that it has. Bytes are at most
// the largest int64, as sizes are what layers claim.
type Count struct {
	Names int
	Bytes int64
}

// A Change is what a layer does to a path.
type Change uint8

// The changes.
const (
	Added    Change = 1 + iota // it was not there
	Replaced                   // it has another file
	Changed                    // it has other attributes; a directory may be another one
	Hidden                     // it is gone
)

// String returns the word for the change.
func (c Change) String() string {
	switch c {
	case Added:
		return "added"
	case Replaced:
		return "replaced"
	case Changed:
		return "changed"
	case Hidden:
		return "hidden"
	}
	return "none"
}

// A Version is what a layer has made of a path.
type Version struct {
	Layer  int
	Change Change
	// Attr are the attributes that the path has then, but for Nlink, which is 0. Of a
	// path that is hidden there are none.
	Attr Attr
	// Target is what a symlink holds.
	Target string
}

// Layers returns what each layer does, the base first. The slice is not to be changed.
func (s *Survey) Layers() []LayerChanges { return s.layers }

// Layer returns which layer an inode of the tree comes from: that of its content, or of
// what it is, and of a directory the one that gave it the attributes that it has.
func (s *Survey) Layer(n Node) int { return int(s.given[n.id]) }

// History returns what layers have done to a path, the base first: one version for each
// that has done something. The path need not be in the tree. Paths are those of
// Tree.Lookup; a symlink at the end is not followed, and directories that are gone are
// not reached through symlinks that are gone.
//
// The error is a *fs.PathError (of io/fs) with ENOENT if no layer has had the path.
func (s *Survey) History(path string) ([]Version, error) {
	at, ok := s.find(path)
	if !ok {
		return nil, &iofs.PathError{Op: "lookup", Path: path, Err: syscall.ENOENT}
	}
	return s.history(at), nil
}

func (s *Survey) history(at uint32) []Version {
	var events []surveyEvent
	for i := s.paths.at(at).last; i != 0; i = s.events.at(i).prev {
		events = append(events, *s.events.at(i))
	}
	var list []Version
	for i := len(events) - 1; i >= 0; i-- {
		end := len(s.layers)
		if i > 0 {
			end = int(events[i-1].layer)
		}
		list = s.appendVersions(list, events[i], end)
	}
	return list
}

// appendVersions appends what an event made of a path, and what later layers before end
// have changed.
func (s *Survey) appendVersions(list []Version, e surveyEvent, end int) []Version {
	if e.ino == 0 {
		return append(list, Version{Layer: int(e.layer), Change: Hidden})
	}
	attr, target := s.attr(e.ino)
	n := s.inodes.at(e.ino)
	var states []Version // the newest first
	add := func(given uint16) {
		if int(given) > int(e.layer) && int(given) < end {
			states = append(states, Version{int(given), Changed, attr, target})
		}
	}
	add(n.given)
	for given, i := n.given, n.state; i != 0 && given > e.layer; {
		st := s.states.at(i)
		attr.Mode, attr.UID, attr.GID = uint32(st.mode), st.uid, st.gid
		attr.ModSec, attr.ModNsec = st.modSec, st.modNsec
		given, i = st.given, st.prev
		add(given)
	}
	if e.change != 0 {
		list = append(list, Version{int(e.layer), e.change, attr, target})
	}
	for i := len(states) - 1; i >= 0; i-- {
		list = append(list, states[i])
	}
	return list
}

// attr returns the attributes that an inode had last, and what it holds as a symlink.
func (s *Survey) attr(ino uint32) (Attr, string) {
	n := s.node(ino)
	a := n.Attr()
	a.Nlink = 0
	return a, n.Target()
}

// maxHistorySteps is how many components a path may have.
const maxHistorySteps = 1 << 12

// find returns the position of a path. As much of it as there is in the tree is looked
// up there, through symlinks, and the rest among all paths that there were.
func (s *Survey) find(path string) (uint32, bool) {
	names := strings.Split(path, "/")
	if len(names) > maxHistorySteps {
		return 0, false
	}
	for k := len(names); k >= 0; k-- {
		if k > 0 && k == len(names) && !isDots(names[k-1]) {
			continue // a symlink at the end is not followed
		}
		n, err := s.tree.Lookup(strings.Join(names[:k], "/"), true)
		if err != nil || !n.inode().isDir() {
			continue
		}
		if at, ok := s.descend(s.dirs[n.inode().off], names[k:]); ok {
			return at, true
		}
	}
	return 0, false
}

// isDots reports whether a component leads to a directory that is known already.
func isDots(name string) bool { return name == "" || name == "." || name == ".." }

// descend goes down from a path.
func (s *Survey) descend(at uint32, names []string) (uint32, bool) {
	for _, name := range names {
		switch name {
		case "", ".":
			continue
		case "..":
			if at != rootPath {
				at = s.names.all.at(at).set
			}
			continue
		}
		below, ok := s.names.position(at, name)
		if !ok {
			return 0, false
		}
		at = below
	}
	return at, true
}
