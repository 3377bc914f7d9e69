package fs

import (
	"math"
	"slices"

	"github.com/imgfs/imgfs/layerindex"
)

// What a survey takes, in bytes.
const (
	surveyPathCost  = 56 // a path
	surveyEventCost = 20
	surveyInodeCost = 36
	surveyStateCost = 32
	surveyDirtyCost = 112 // while the layer is merged
	surveyGoneCost  = 56  // an inode that is not in the tree
)

// A surveyor notes what layers do to paths while a builder merges them. It keeps its
// own paths: the builder's names are of directories, and a path may have been in
// several, one after the other.
//
// What a layer does counts when the layer is done: what it makes and takes away again
// nobody has seen.
type surveyor struct {
	b      *Builder
	budget *layerindex.Budget

	// names are the paths that any layer has had: a name in the set with the number
	// of the path above it. paths has more of each, by the same positions.
	names  linkTable
	paths  paged[surveyPath]
	events paged[surveyEvent] // 0 is none
	inodes paged[surveyInode] // by the builder's numbers
	states paged[surveyState] // 0 is none
	layers []LayerChanges

	// Of the layer that is being applied:
	layer   uint16
	touched []uint32 // paths
	dirty   []dirtyInode
	stack   []uint32
	work    int
}

// A surveyPath is a path that some layer has had.
type surveyPath struct {
	last  uint32 // the event that came last
	first uint32 // a path below it that may be there, 0 if there is none
	next  uint32 // the next one of the same directory
	// listed says that it is among those of its directory. Those that are gone stay there
	// until the directory goes: removing costs no search.
	listed bool
}

// A surveyEvent says what a path has been since a layer.
type surveyEvent struct {
	prev   uint32 // the event of the path before it
	ino    uint32 // 0: the path is hidden
	layer  uint16
	change Change // 0: nothing that shows
}

// A surveyInode is what is noted of one of the builder's inodes.
type surveyInode struct {
	names uint32 // paths that it has now
	path  uint32 // of a directory
	state uint32 // the newest of those before the present one
	dirty uint32 // position in dirty and one more, 0 if the layer has not touched it
	fresh uint32 // paths that the layer gave an inode of a lower one
	birth uint16 // layer that made it
	given uint16 // layer that gave it the attributes that it has
	seen  bool   // some layer has left it with a path
	had   bool   // its bytes were counted as brought
	gone  bool   // they were counted as gone
}

// A surveyState are attributes that an inode had before a later layer changed them.
type surveyState struct {
	modSec   int64
	prev     uint32
	modNsec  uint32
	uid, gid uint32
	mode     uint16
	given    uint16 // layer
}

// A dirtyInode is one of a lower layer as it was before this layer.
type dirtyInode struct {
	ino    uint32
	was    inode
	xattrs []layerindex.Xattr
}

// rootPath is the position of the root.
const rootPath = 0

func newSurveyor(b *Builder, names int) (*surveyor, error) {
	s := &surveyor{b: b, budget: b.budget, names: newLinkTable(b.room, b.links.names)}
	s.paths.room, s.events.room, s.inodes.room, s.states.room = b.room, b.room, b.room, b.room
	s.names.reserve(names)
	s.names.add(math.MaxUint32, "")
	s.paths.push(surveyPath{})
	s.events.push(surveyEvent{})
	s.states.push(surveyState{})
	if err := s.grow(); err != nil {
		return nil, err
	}
	s.inodes.at(b.root).path = rootPath
	return s, s.set(rootPath, b.root)
}

// begin begins a layer.
func (s *surveyor) begin() {
	s.layer = s.b.layer
	s.layers = append(s.layers, LayerChanges{})
}

// repeat notes a layer that changes nothing.
func (s *surveyor) repeat() { s.layers = append(s.layers, LayerChanges{}) }

// grow notes the inodes that the builder has made since it was called last.
func (s *surveyor) grow() error {
	more := s.b.inodes.n - s.inodes.n
	if more <= 0 {
		return nil
	}
	if err := s.budget.Take(surveyInodeCost * int64(more)); err != nil {
		return err
	}
	for range more {
		s.inodes.push(surveyInode{birth: s.layer, given: s.layer})
	}
	return nil
}

// inode returns what is noted of an inode.
func (s *surveyor) inode(ino uint32) (*surveyInode, error) {
	if int(ino) >= s.inodes.n {
		if err := s.grow(); err != nil {
			return nil, err
		}
	}
	return s.inodes.at(ino), nil
}

// touch is called before an inode gets other attributes.
func (s *surveyor) touch(ino uint32) error {
	n, err := s.inode(ino)
	if err != nil || n.birth == s.layer || n.dirty != 0 {
		return err
	}
	was := *s.b.inodes.at(ino)
	if err := s.budget.Take(surveyDirtyCost); err != nil {
		return err
	}
	s.dirty = append(s.dirty, dirtyInode{ino, was, slices.Clone(s.b.xattrsOf(ino))})
	n.dirty = uint32(len(s.dirty))
	return nil
}

// xattrsOf returns the xattrs that an inode has now.
func (b *Builder) xattrsOf(ino uint32) []layerindex.Xattr {
	at := b.inodes.at(ino).extra
	if list, ok := b.merged[at]; ok {
		return list
	}
	return b.sets.list[b.extras[at].xattrs]
}

// put is called when a name in a directory has got an inode.
func (s *surveyor) put(dir uint32, name string, text, ino uint32) error {
	if _, err := s.inode(ino); err != nil {
		return err
	}
	above := s.inodes.at(dir).path
	at, err := s.path(above, name, text)
	if err != nil {
		return err
	}
	if p := s.paths.at(at); !p.listed {
		p.listed, p.next = true, s.paths.at(above).first
		s.paths.at(above).first = at
	}
	old := s.now(at)
	if old == ino {
		return nil
	}
	if err := s.drop(at, old); err != nil {
		return err
	}
	s.inodes.at(ino).path = at
	return s.set(at, ino)
}

// path returns the position of a path, which is a new one if no layer has had it. text is
// where the builder has the name.
func (s *surveyor) path(above uint32, name string, text uint32) (uint32, error) {
	if at, ok := s.find(above, name); ok {
		return at, nil
	}
	if err := s.budget.Take(surveyPathCost); err != nil {
		return 0, err
	}
	s.names.addText(above, name, text)
	return s.paths.push(surveyPath{}), nil
}

// find returns the position of a name below a path.
func (s *surveyor) find(above uint32, name string) (uint32, bool) {
	return s.names.position(above, name)
}

// now returns the inode that a path has now, 0 if it has none.
func (s *surveyor) now(at uint32) uint32 { return s.events.at(s.paths.at(at).last).ino }

// set gives a path another inode, or none.
func (s *surveyor) set(at, ino uint32) error {
	if ino != 0 {
		s.inodes.at(ino).names++
	}
	p := s.paths.at(at)
	if last := s.events.at(p.last); p.last != 0 && last.layer == s.layer {
		last.ino = ino
		return nil
	}
	if err := s.budget.Take(surveyEventCost); err != nil {
		return err
	}
	if s.events.n >= math.MaxInt32 {
		return ErrTooLarge
	}
	p.last = s.events.push(surveyEvent{prev: p.last, ino: ino, layer: s.layer})
	s.touched = push(s.touched, at)
	return nil
}

// drop takes an inode from a path, and if it is a directory all below.
func (s *surveyor) drop(at, ino uint32) error {
	if ino == 0 {
		return nil
	}
	s.inodes.at(ino).names--
	if !s.b.inodes.at(ino).isDir() {
		return nil
	}
	return s.hideBelow(at)
}

// hide is called when a name in a directory is taken away.
func (s *surveyor) hide(dir uint32, name string) error {
	at, ok := s.find(s.inodes.at(dir).path, name)
	if !ok || s.now(at) == 0 {
		return nil
	}
	if err := s.drop(at, s.now(at)); err != nil {
		return err
	}
	return s.set(at, 0)
}

// empty is called when all names in a directory are taken away.
func (s *surveyor) empty(dir uint32) error { return s.hideBelow(s.inodes.at(dir).path) }

// hideBelow takes away what is below a path. What it looks at was put there since it
// looked last, so that all its calls together take no longer than the puts.
func (s *surveyor) hideBelow(at uint32) error {
	s.stack = append(s.stack[:0], at)
	for len(s.stack) > 0 {
		dir := s.paths.at(s.stack[len(s.stack)-1])
		s.stack = s.stack[:len(s.stack)-1]
		at := dir.first
		for dir.first = 0; at != 0; {
			p := s.paths.at(at)
			p.listed = false
			if ino := s.now(at); ino != 0 {
				s.inodes.at(ino).names--
				if s.b.inodes.at(ino).isDir() {
					s.stack = append(s.stack, at)
				}
				if err := s.set(at, 0); err != nil {
					return err
				}
			}
			if s.work++; s.work%ctxEntries == 0 && s.b.ctx.Err() != nil {
				return s.b.ctx.Err()
			}
			at = p.next
		}
	}
	return nil
}

// finish makes the survey, when all inodes have a number in the tree and are not yet in
// its order.
func (s *surveyor) finish(f *freezer) (*Survey, error) {
	s.names.settle()
	r := &Survey{
		names: s.names, paths: s.paths, events: s.events, inodes: s.inodes, states: s.states, layers: s.layers,
		place: makeIn[uint32](s.b.room, s.inodes.n)[:s.inodes.n], given: makeIn[uint16](s.b.room, f.count)[:f.count], dirs: make([]uint32, len(f.dirs)),
	}
	for ino := range uint32(s.inodes.n) {
		n := s.inodes.at(ino)
		if f.now() {
			return nil, s.b.ctx.Err()
		}
		if id := f.ids[ino]; id != 0 {
			r.place[ino] = id - 1
			in := s.b.inodes.at(ino)
			if r.given[id-1] = n.birth; in.isDir() {
				r.given[id-1] = n.given
				r.dirs[in.off] = n.path
			}
			continue
		}
		if !n.seen {
			continue
		}
		if err := s.budget.Take(surveyGoneCost); err != nil {
			return nil, err
		}
		r.place[ino] = goneInode | r.gone.push(*s.b.inodes.at(ino))
	}
	return r, nil
}
