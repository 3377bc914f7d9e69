package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Tree returns the tree of all that can be reached from the root. Inodes are
// numbered breadth first, the names of a directory in byte order: the numbers
// depend on nothing but the tree itself. It uses the builder up: what the tree
// keeps stays where it is, as a copy would take as much again.
func (b *Builder) Tree() (*Tree, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	b.links.slots, b.reserved = nil, nil
	b.sets.end()
	for at, list := range b.merged {
		// What the xattrs take is counted: they are of sets that are there.
		set, err := b.sets.intern(list, xattrSetCost)
		if err != nil {
			return nil, fmt.Errorf("attributes of hard links: %w", err)
		}
		b.extras[at].xattrs = set
		delete(b.merged, at)
	}
	b.sets.slots = nil
	sorted := b.bySet()
	f := freezer{Builder: b, ids: makeIn[uint32](b.room, b.inodes.n)[:b.inodes.n], canceled: canceled{ctx: b.ctx, in: b.room}}
	f.names = makeIn[dirent](b.room, len(sorted.links))
	if b.room != nil {
		f.order = makeIn[uint32](b.room, b.inodes.n)
	}
	f.id(b.root)
	for i := 0; i < len(f.queue); i++ {
		if f.freezeDir(i, sorted.of(f.queue[i].set)); f.now() {
			return nil, b.ctx.Err()
		}
	}
	b.links.all, f.queue, sorted = paged[link]{}, nil, linksBySet{}
	if b.survey != nil {
		var err error
		if b.surveyed, err = b.survey.finish(&f); err != nil {
			return nil, err
		}
		b.survey = nil
	}
	f.renumber()
	b.inodes.cut(f.count)
	t := &Tree{
		inodes:  b.inodes,
		count:   f.count,
		dirs:    trim(f.dirs),
		names:   f.names,
		text:    b.links.names.freeze(),
		targets: b.targets.freeze(),
		extras:  trim(b.extras),
		xattrs:  b.sets.list,
		sparse:  b.sparse,
		sources: b.sources,
	}
	if b.surveyed != nil {
		b.surveyed.bind(t)
	}
	return t, nil
}

// Survey returns the survey of the tree, after Tree; nil if BuilderOptions did not ask
// for one.
func (b *Builder) Survey() *Survey { return b.surveyed }

// trim returns s without the room that it does not need, if that is much: the
// tree lives long.
func trim[E any](s []E) []E {
	if cap(s)-len(s) <= len(s)/16 {
		return s
	}
	return append(make([]E, 0, len(s)), s...)
}

// linksBySet are positions of the links that were not removed, those of each
// set together.
type linksBySet struct {
	links []uint32
	first []uint32 // by set, and the end
}

func (l *linksBySet) of(set uint32) []uint32 {
	return l.links[l.first[set]:l.first[set+1]]
}

// bySet sorts the links by set.
func (b *Builder) bySet() linksBySet {
	// A counting sort. first[set+2] counts, then first[set+1] is where the
	// next link goes, and in the end where the next set begins.
	first := make([]uint32, b.dirSets+2)
	for i := range uint32(b.links.all.n) {
		if i%roomEntries == 0 && b.room != nil {
			b.room.Check()
		}
		if l := b.links.all.at(i); l.ino != 0 {
			first[l.set+2]++
		}
	}
	for i := 1; i < len(first); i++ {
		first[i] += first[i-1]
	}
	n := int(first[len(first)-1])
	links := makeIn[uint32](b.room, n)[:n]
	for i := range uint32(b.links.all.n) {
		if i%roomEntries == 0 && b.room != nil {
			b.room.Check()
		}
		if l := b.links.all.at(i); l.ino != 0 {
			links[first[l.set+1]] = i
			first[l.set+1]++
		}
	}
	return linksBySet{links, first}
}

// canceled looks now and then whether a context has ended.
type canceled struct {
	ctx context.Context
	n   uint
	yes bool
	in  Room // checked meanwhile, if not nil
}

// now reports whether it has.
func (c *canceled) now() bool {
	if c.n++; c.n%roomEntries == 0 && c.in != nil {
		c.in.Check()
	}
	if c.n%(1<<12) == 0 && !c.yes {
		c.yes = c.ctx.Err() != nil
	}
	return c.yes
}

// A freezer is a tree while a builder is frozen into it.
type freezer struct {
	*Builder
	canceled
	ids   []uint32    // by inode of the builder: position in the tree and one more
	queue []queuedDir // in the order of dirs
	order []uint32    // inodes of the builder by position in the tree, if there is a room
	count int         // inodes of the tree

	dirs  []dir
	names []dirent
}

// A queuedDir is a directory of the builder.
type queuedDir struct{ ino, set, parent uint32 }

// id returns the position of an inode, which it takes over if it is new.
func (f *freezer) id(ino uint32) uint32 {
	if id := f.ids[ino]; id != 0 {
		return id - 1
	}
	if in := f.inodes.at(ino); in.isDir() {
		f.queue = append(f.queue, queuedDir{ino, in.nlink, uint32(in.off)})
		in.nlink, in.size, in.off = 2, dirSize, int64(len(f.queue)-1)
	}
	f.count++
	f.ids[ino] = uint32(f.count)
	if f.room != nil {
		f.order = append(f.order, ino)
	}
	return f.ids[ino] - 1
}

// freezeDir takes over the names of the directory at a position of the queue.
func (f *freezer) freezeDir(at int, links []uint32) {
	all, text := &f.links.all, f.links.names
	slices.SortFunc(links, func(a, b uint32) int {
		if f.now() {
			return 0 // whatever order it ends in, soon
		}
		return strings.Compare(text.counted(all.at(a).text), text.counted(all.at(b).text))
	})
	d := f.queue[at]
	f.dirs = append(f.dirs, dir{uint32(len(f.names)), uint32(len(links)), f.id(d.parent)})
	for _, k := range links {
		f.now() // it goes on
		l := all.at(k)
		f.names = append(f.names, dirent{l.text, f.id(l.ino)})
		if f.inodes.at(l.ino).isDir() {
			f.inodes.at(d.ino).nlink++
		} else {
			f.inodes.at(l.ino).nlink++
		}
	}
}

// renumber brings the inodes in the order of the tree, those that are not in it
// behind the others, or nowhere. In a room they are copied: exchanging them looks at all
// of them here and there.
func (f *freezer) renumber() {
	if f.room != nil {
		sorted := paged[inode]{room: f.room}
		for _, ino := range f.order {
			f.now() // it goes on
			sorted.push(*f.inodes.at(ino))
		}
		f.inodes, f.order = sorted, nil
		return
	}
	for i := range uint32(f.inodes.n) {
		f.now() // it goes on
		// Each turn brings one inode to its place.
		for f.ids[i] != 0 && f.ids[i] != i+1 {
			to := f.ids[i] - 1
			a, b := f.inodes.at(i), f.inodes.at(to)
			*a, *b = *b, *a
			f.ids[i], f.ids[to] = f.ids[to], f.ids[i]
		}
	}
}
