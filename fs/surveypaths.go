package fs

import (
	"iter"
	"math"
	"syscall"
)

// A Path is a path that some layer of a survey has had. The zero Path is not valid.
// Paths of the same survey are comparable.
type Path struct {
	s  *Survey
	at uint32
}

// NumPaths returns how many Paths there are.
func (s *Survey) NumPaths() int { return s.paths.n }

// Path returns the path with a number, 0 to NumPaths()-1: 0 is the root. A path has a
// larger number than the one above it. One that its own layer takes away again has a
// number, too, and nothing else: no Change, and no After.
func (s *Survey) Path(i int) Path { return Path{s, uint32(i)} }

// Index returns the number of the path.
func (p Path) Index() int { return int(p.at) }

// Above returns the path of the directory that it is in; the root's is itself.
func (p Path) Above() Path {
	if p.at == rootPath {
		return p
	}
	return Path{p.s, p.s.names.all.at(p.at).set}
}

// Name returns the last name of the path, "" of the root.
func (p Path) Name() string { return p.s.names.name(p.s.names.all.at(p.at)) }

// String returns the path, which begins with a slash.
func (p Path) String() string {
	if p.at == rootPath {
		return "/"
	}
	var parts []string
	size := 0
	for at := p; at.at != rootPath; at = at.Above() {
		parts = append(parts, at.Name())
		size += 1 + len(parts[len(parts)-1])
	}
	b := make([]byte, 0, size)
	for i := len(parts) - 1; i >= 0; i-- {
		b = append(append(b, '/'), parts[i]...)
	}
	return string(b)
}

// After returns what the path was when a layer had been applied, the last one for what
// it is in the tree. ok is false if it was not there.
//
// The node has the attributes that later layers gave it, if any did. It can be read also
// if it is not in the tree any more; then it has a number above Tree.Len, and nothing
// below it.
func (p Path) After(layer int) (n Node, ok bool) {
	e := p.event(layer)
	if e.ino == 0 {
		return Node{}, false
	}
	return p.s.node(e.ino), true
}

// event returns the newest event of the path up to a layer.
func (p Path) event(layer int) *surveyEvent {
	i := p.s.paths.at(p.at).last
	for i != 0 && int(p.s.events.at(i).layer) > layer {
		i = p.s.events.at(i).prev
	}
	return p.s.events.at(i)
}

// Change returns what a layer has done to the path, 0 for nothing.
func (p Path) Change(layer int) Change {
	s := p.s
	e := p.event(layer)
	if int(e.layer) == layer && e.change != 0 {
		return e.change
	}
	if e.ino == 0 || int(e.layer) == layer {
		return 0
	}
	n := s.inodes.at(e.ino)
	for given, i := n.given, n.state; given > e.layer; i = s.states.at(i).prev {
		if int(given) == layer {
			return Changed
		}
		if i == 0 {
			break
		}
		given = s.states.at(i).given
	}
	return 0
}

// Touched reports whether a layer above the given one has done something to the path.
func (p Path) Touched(layer int) bool {
	e := p.event(math.MaxInt)
	if e.ino != 0 && int(p.s.inodes.at(e.ino).given) > layer {
		return true
	}
	for ; int(e.layer) > layer; e = p.s.events.at(e.prev) {
		if e.change != 0 {
			return true
		}
	}
	return false
}

// History returns what layers have done to the path, the base first, as Survey.History
// does.
func (p Path) History() []Version { return p.s.history(p.at) }

// node returns the node of an inode that some layer has left with a path.
func (s *Survey) node(ino uint32) Node {
	at := s.place[ino]
	if at&goneInode != 0 {
		at = at&^goneInode + uint32(s.tree.count)
	}
	return Node{s.tree, at}
}

// A Waste is a file that a layer brings and that the tree does not have.
type Waste struct {
	Path Path // one of those that it had
	// Layer brings it, and By is the layer that takes it away from the path, by Change:
	// Replaced or Hidden.
	Layer, By int
	Change    Change
	Bytes     int64
}

// Wasted iterates over the files that make LayerChanges.Useless of all layers: each inode
// once, in no order.
func (s *Survey) Wasted() iter.Seq[Waste] {
	return func(yield func(Waste) bool) {
		told := make([]uint64, s.inodes.n/64+1)
		for at := range uint32(s.paths.n) {
			if at%roomEntries == 0 && s.paths.room != nil {
				s.paths.room.Check()
			}
			next := s.events.at(s.paths.at(at).last)
			for i := next.prev; i != 0; {
				e := s.events.at(i)
				if ino := e.ino; ino != 0 && ino != next.ino && s.inodes.at(ino).gone && told[ino/64]&(1<<(ino%64)) == 0 {
					told[ino/64] |= 1 << (ino % 64)
					n, by := s.node(ino), next.change
					if by != Hidden {
						by = Replaced
					}
					w := Waste{Path{s, at}, int(s.inodes.at(ino).birth), int(next.layer), by, n.inode().size}
					if n.inode().format() == syscall.S_IFREG && !yield(w) {
						return
					}
				}
				next, i = e, e.prev
			}
		}
	}
}
