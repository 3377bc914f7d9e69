package ls

import (
	"fmt"
	"iter"
	"slices"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// children sets the rows of a group to those of a directory, in the order in which they
// are printed. Where that is not the order of the directory their positions are gathered,
// and nothing else: a directory may have millions of names.
func (l *Lister) children(g *group, dir fs.Node) {
	g.rows = l.names(dir)
	if l.o.sort == byNothing {
		g.rows = l.unsorted(dir)
	}
	g.wide = g.rows
	inOrder := (l.o.sort == byName && !l.o.reverse || l.o.sort == byNothing) && !l.o.dirsFirst
	if inOrder && l.o.follow != followAll && (l.o.format == single || l.o.format == long) {
		return
	}
	count := uint32(dir.NumChildren())
	g.at = func(i uint32) row {
		switch i {
		case count:
			return row{name: ".", node: dir}
		case count + 1:
			return row{name: "..", node: dir.Parent()}
		}
		name, c := dir.ChildAt(int(i))
		return l.followed(g, row{name: name, node: c, place: i})
	}
	for r := range l.look(g.rows) {
		if g.order = append(g.order, r.place); l.needsFiles() && l.followed(g, r).broken {
			l.failed(g.image, below(g.dir, r.name), fmt.Errorf("the symlink leads nowhere"))
		}
	}
	if !inOrder && l.ctx.Err() == nil {
		l.sort(g)
	}
	g.rows, g.wide = g.ordered, g.ordered
}

// needsFiles reports whether -L has an error for a symlink that leads nowhere: where more
// than its name is wanted.
func (l *Lister) needsFiles() bool {
	return l.o.follow == followAll && (l.array != nil || l.o.format == long || l.o.blocks || l.o.recursive || l.o.dirsFirst || l.colors != nil ||
		l.o.indicators != noIndicators || l.o.sort == bySize || l.o.sort == byTime)
}

// followed returns a row as -L has it.
func (l *Lister) followed(g *group, r row) row {
	if l.o.follow != followAll || r.node.Mode()&unix.S_IFMT != unix.S_IFLNK {
		return r
	}
	to, ok := g.target(r)
	if r.broken = !ok; ok {
		r.node = to
	}
	return r
}

// target returns what a symlink leads to.
func (g *group) target(r row) (fs.Node, bool) {
	img, path := g.image, ""
	if r.arg != nil {
		img, path = r.arg.Image, r.arg.Path
	} else {
		path = below(g.dir, r.name)
	}
	n, err := img.Tree.Lookup(path, true)
	return n, err == nil
}

// dots returns . and .. of a directory, if they are listed.
func (l *Lister) dots(dir fs.Node) []row {
	if !l.o.all {
		return nil
	}
	count := uint32(dir.NumChildren())
	dots := []row{{name: ".", node: dir, place: count}, {name: "..", node: dir.Parent(), place: count + 1}}
	return slices.DeleteFunc(dots, func(r row) bool { return !l.o.shows(r.name) })
}

// unsorted returns the rows of a directory as they lie there.
func (l *Lister) unsorted(dir fs.Node) iter.Seq[row] {
	return func(yield func(row) bool) {
		for _, d := range l.dots(dir) {
			if !yield(d) {
				return
			}
		}
		for i := range dir.NumChildren() {
			name, c := dir.ChildAt(i)
			if l.o.shows(name) && !yield(row{name: name, node: c, place: uint32(i)}) {
				return
			}
		}
	}
}

// names returns the rows of a directory in byte order.
func (l *Lister) names(dir fs.Node) iter.Seq[row] {
	return func(yield func(row) bool) {
		dots := l.dots(dir)
		for i := range dir.NumChildren() {
			name, c := dir.ChildAt(i)
			for len(dots) > 0 && dots[0].name < name {
				if !yield(dots[0]) {
					return
				}
				dots = dots[1:]
			}
			if l.o.shows(name) && !yield(row{name: name, node: c, place: uint32(i)}) {
				return
			}
		}
		for _, d := range dots {
			if !yield(d) {
				return
			}
		}
	}
}

// look passes rows on until the listing ends early, which it looks for now and then.
func (l *Lister) look(rows iter.Seq[row]) iter.Seq[row] {
	return func(yield func(row) bool) {
		n := 0
		for r := range rows {
			if n++; n%1024 == 0 && l.ctx.Err() != nil || !yield(r) {
				return
			}
		}
	}
}
