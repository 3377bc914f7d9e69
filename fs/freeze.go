package fs

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
)

// freeze makes the tree of what can be reached from the root. Inodes are
// numbered breadth first, the names of a directory in byte order: the numbers
// depend on nothing but the tree itself.
func (b *builder) freeze() (*Tree, error) {
	sorted, size := b.bySet()
	if size > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d bytes of names", ErrTooLarge, size)
	}
	f := freezer{builder: b, ids: make([]uint32, len(b.inodes))}
	f.inodes = make([]inode, 0, len(sorted.links)+1)
	f.names = make([]dirent, 0, len(sorted.links)+1)
	f.text.Grow(int(size))
	f.extras = []extra{{xattrs: f.xattrs.add(nil)}}
	f.id(b.root)
	for i := 0; i < len(f.queue); i++ {
		f.freezeDir(i, sorted.of(b.inodes[f.queue[i]].nlink))
	}
	if int64(f.xattrs.data.Len()) > math.MaxUint32 || int64(len(f.extents)) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: xattrs and extents of sparse files", ErrTooLarge)
	}
	f.names = append(f.names, dirent{text: uint32(f.text.Len())})
	return &Tree{
		inodes:  trim(f.inodes),
		dirs:    trim(f.dirs),
		names:   trim(f.names),
		text:    f.text.String(),
		targets: f.targets.String(),
		extras:  trim(f.extras),
		xattrs:  f.xattrs.data.String(),
		extents: trim(f.extents),
		sources: b.sources,
	}, nil
}

// trim returns s without the room that it does not need, if that is much: the
// tree lives long.
func trim[E any](s []E) []E {
	if cap(s)-len(s) <= len(s)/16 {
		return s
	}
	return append(make([]E, 0, len(s)), s...)
}

// linksBySet are the links that were not removed, those of each set together.
type linksBySet struct {
	links []*link
	first []uint32 // by set, and the end
}

func (l *linksBySet) of(set uint32) []*link {
	return l.links[l.first[set]:l.first[set+1]]
}

// bySet sorts the links by set; size is the length of all their names.
func (b *builder) bySet() (sorted linksBySet, size int64) {
	// A counting sort. first[set+2] counts, then first[set+1] is where the
	// next link goes, and in the end where the next set begins.
	first := make([]uint32, b.sets+2)
	for i := range b.links.all {
		if l := &b.links.all[i]; l.ino != 0 {
			first[l.set+2]++
			size += int64(len(l.name))
		}
	}
	for i := 1; i < len(first); i++ {
		first[i] += first[i-1]
	}
	links := make([]*link, first[len(first)-1])
	for i := range b.links.all {
		if l := &b.links.all[i]; l.ino != 0 {
			links[first[l.set+1]] = l
			first[l.set+1]++
		}
	}
	return linksBySet{links, first}, size
}

// A freezer is a tree while a builder is frozen into it.
type freezer struct {
	*builder
	ids   []uint32 // by inode of the builder: position in inodes and one more
	queue []uint32 // directories of the builder, in the order of dirs

	inodes  []inode
	dirs    []dir
	names   []dirent
	text    strings.Builder
	targets strings.Builder
	extras  []extra
	xattrs  xattrTable
	extents []extent
}

// id returns the position of an inode, which it takes over if it is new.
func (f *freezer) id(ino uint32) uint32 {
	if id := f.ids[ino]; id != 0 {
		return id - 1
	}
	in := f.builder.inodes[ino]
	switch in.format() {
	case syscall.S_IFDIR:
		f.queue = append(f.queue, ino)
		in.nlink, in.size, in.off = 2, dirSize, int64(len(f.queue)-1)
	case syscall.S_IFLNK:
		target := f.builder.targets[in.off]
		in.off = int64(f.targets.Len())
		f.targets.WriteString(target)
	}
	if in.extra != 0 {
		in.extra = f.extra(ino)
	}
	f.inodes = append(f.inodes, in)
	f.ids[ino] = uint32(len(f.inodes))
	return f.ids[ino] - 1
}

// extra takes over what few inodes have, and returns where it is.
func (f *freezer) extra(ino uint32) uint32 {
	extents, sparse := f.builder.sparse[ino]
	f.extras = append(f.extras, extra{
		xattrs: f.xattrs.add(f.builder.xattrs[ino]),
		sparse: sparse,
		first:  uint32(len(f.extents)),
		count:  uint32(len(extents)),
	})
	f.extents = append(f.extents, extents...)
	return uint32(len(f.extras) - 1)
}

// freezeDir takes over the names of the directory at a position of the queue.
func (f *freezer) freezeDir(at int, links []*link) {
	slices.SortFunc(links, func(a, b *link) int { return strings.Compare(a.name, b.name) })
	ino := f.queue[at]
	self, parent := f.id(ino), f.id(uint32(f.builder.inodes[ino].off))
	f.dirs = append(f.dirs, dir{uint32(len(f.names)), uint32(len(links)), parent})
	for _, l := range links {
		id := f.id(l.ino)
		f.names = append(f.names, dirent{uint32(f.text.Len()), id})
		f.text.WriteString(l.name)
		if f.inodes[id].isDir() {
			f.inodes[self].nlink++
		} else {
			f.inodes[id].nlink++
		}
	}
}
