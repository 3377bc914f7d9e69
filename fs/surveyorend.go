package fs

import (
	"math"
	"slices"
	"syscall"
)

// end ends a layer: it decides what has become of each path, and counts.
func (s *surveyor) end() error {
	if err := s.grow(); err != nil {
		return err
	}
	l := &s.layers[len(s.layers)-1]
	for i, at := range s.touched {
		s.look(i)
		s.settle(l, at)
	}
	// The bytes of an inode with several names count once: as replacing something if
	// one of the names does, and as hidden if one of them is.
	for _, first := range []bool{true, false} {
		for i, at := range s.touched {
			s.look(i)
			s.count(l, at, first)
		}
	}
	for i := range s.dirty {
		s.look(i)
		if err := s.changed(l, &s.dirty[i]); err != nil {
			return err
		}
	}
	s.budget.Release(surveyDirtyCost * int64(len(s.dirty)))
	clear(s.dirty) // the xattrs
	s.touched, s.dirty = s.touched[:0], s.dirty[:0]
	return nil
}

// look has the room looked at now and then.
func (s *surveyor) look(i int) {
	if i%ctxEntries == 0 && s.b.room != nil {
		s.b.room.Check()
	}
}

// settle decides what a layer has done to a path, and forgets what comes to nothing.
func (s *surveyor) settle(l *LayerChanges, at uint32) {
	p := s.paths.at(at)
	e := s.events.at(p.last)
	was := s.events.at(e.prev).ino
	if was == e.ino {
		p.last = e.prev
		return
	}
	switch {
	case e.ino == 0:
		e.change = Hidden
		l.Hidden.Names++
	case was == 0:
		e.change = Added
		l.Added.Names++
	case !s.b.inodes.at(was).isDir() || !s.b.inodes.at(e.ino).isDir():
		e.change = Replaced
		l.Replaced.Names++
	case !s.alike(was, e.ino):
		e.change = Changed // one directory in place of another
		l.Changed++
	default:
		s.inodes.at(e.ino).given = s.inodes.at(was).given
	}
	if e.ino == 0 {
		return
	}
	n := s.inodes.at(e.ino)
	n.seen = true
	if n.dirty != 0 && was != e.ino {
		n.fresh++
	}
}

// alike reports whether a directory has the attributes that another one had before this
// layer.
func (s *surveyor) alike(was, ino uint32) bool {
	old, xattrs := *s.b.inodes.at(was), s.b.xattrsOf(was)
	if k := s.inodes.at(was).dirty; k != 0 {
		old, xattrs = s.dirty[k-1].was, s.dirty[k-1].xattrs
	}
	return alike(&old, s.b.inodes.at(ino)) && slices.Equal(xattrs, s.b.xattrsOf(ino))
}

func alike(a, b *inode) bool {
	return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.modSec == b.modSec && a.modNsec == b.modNsec
}

// count counts the bytes that a layer has brought to a path, or taken from it. It is
// called for replaced and hidden paths first.
func (s *surveyor) count(l *LayerChanges, at uint32, first bool) {
	e := s.events.at(s.paths.at(at).last)
	if e.layer != s.layer || e.change == 0 {
		return
	}
	was := s.events.at(e.prev).ino
	if e.ino != 0 && (e.change == Replaced) == first {
		n, in := s.inodes.at(e.ino), s.b.inodes.at(e.ino)
		if in.format() == syscall.S_IFREG && n.birth == s.layer && !n.had {
			n.had = true
			to := &l.Added
			if first {
				to = &l.Replaced
			}
			to.Bytes = addBytes(to.Bytes, in.size)
		}
	}
	if was != 0 && (e.change == Hidden) == first {
		n, in := s.inodes.at(was), s.b.inodes.at(was)
		if in.format() == syscall.S_IFREG && n.names == 0 && !n.gone {
			n.gone = true
			useless := &s.layers[n.birth].Useless
			*useless = addBytes(*useless, in.size)
			if first {
				l.Hidden.Bytes = addBytes(l.Hidden.Bytes, in.size)
			}
		}
	}
}

// bind gives a survey its tree, and the tree the inodes that it has no more, with what
// a builder keeps in them put right.
func (s *Survey) bind(t *Tree) {
	s.tree = t
	for i := range uint32(s.gone.n) {
		in := *s.gone.at(i)
		if in.nlink = 0; in.isDir() {
			in.size, in.off = dirSize, 0
		}
		t.inodes.push(in)
	}
	s.gone = paged[inode]{}
}

// addBytes adds sizes, which are claims: what is too large for a number is the largest
// one.
func addBytes(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// changed notes that an inode has other attributes than before the layer, if it has.
func (s *surveyor) changed(l *LayerChanges, d *dirtyInode) error {
	n, in := s.inodes.at(d.ino), s.b.inodes.at(d.ino)
	fresh := n.fresh
	n.dirty, n.fresh = 0, 0
	if alike(&d.was, in) && slices.Equal(d.xattrs, s.b.xattrsOf(d.ino)) {
		return nil
	}
	if err := s.budget.Take(surveyStateCost); err != nil {
		return err
	}
	n.state = s.states.push(surveyState{
		modSec: d.was.modSec, prev: n.state, modNsec: d.was.modNsec,
		uid: d.was.uid, gid: d.was.gid, mode: d.was.mode, given: n.given,
	})
	n.given = s.layer
	l.Changed += int(n.names - fresh)
	return nil
}
