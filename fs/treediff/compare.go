package treediff

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/imgfs/imgfs/fs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Options are the choices of Compare. nil are the defaults.
type Options struct {
	// Ignore are things in which files may differ without being told. The type, the
	// content, the target and the device of a file cannot be ignored. Default: none.
	Ignore What
	// DirTimes compares the times of directories, too. They change with whatever is
	// added or removed there, which is told anyway. Default: only those of other files.
	DirTimes bool
	// SameOffsets reports whether offsets in a layer that both sides have mean the same
	// on both: whether the trees were made of indexes that count the same. Default:
	// always.
	SameOffsets func(layer digest.Digest) bool
}

// Compare compares two files with all that is below them, and tells what is not the
// same, sorted by path in byte order. The zero Node is nothing: then all of the other
// side was added or removed. Of a directory that only one side has all paths are told.
//
// A file whose content cannot be read is told with the error, and comparing goes on
// behind it. Then the Change has what else differs, which may be nothing. When ctx ends
// its error is told, and is the last.
//
// Up to eight files are read at once, and no more than Compare has told while its caller
// waits for the next.
func Compare(ctx context.Context, a, b fs.Node, opts *Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		reading, cancel := context.WithCancel(ctx)
		w := &walk{ctx: reading, contents: make(map[[2]fs.Node]*verdict)}
		if opts != nil {
			w.opts = *opts
		}
		w.opts.Ignore &= Mode | Owner | Time | Xattrs | HardLinks
		w.first[0], w.first[1] = make(map[fs.Node]string), make(map[fs.Node]string)
		q := &queue{yield: yield, ctx: ctx}
		// Whoever reads still must have ended before the trees may be closed.
		defer func() {
			cancel()
			w.readers.Wait()
		}()
		w.queue = q
		if w.pair("", a, b) {
			q.flush(0)
		}
	}
}

// none is no node.
var none fs.Node

func isDir(n fs.Node) bool { return n != none && n.Mode()&unix.S_IFMT == unix.S_IFDIR }

// pair compares what the sides have at a path, one of which can be none, and all below.
// It reports whether to go on.
func (w *walk) pair(path string, a, b fs.Node) bool {
	return w.self(path, a, b) && w.below(path, a, b)
}

// self compares what the sides have at a path, without what is below.
func (w *walk) self(path string, a, b fs.Node) bool {
	if w.ctx.Err() != nil {
		return w.queue.end()
	}
	switch {
	case a == none && b == none:
		return true
	case a == none:
		return w.queue.add(pending{change: Change{Path: path, Kind: Added, New: b}})
	case b == none:
		return w.queue.add(pending{change: Change{Path: path, Kind: Removed, Old: a}})
	}
	p := pending{change: Change{Path: path, Old: a, New: b, What: w.attributes(path, a, b)}}
	same, settled := w.sameContent(a, b)
	switch {
	case !settled:
		p.content = w.read(a, b)
	case !same:
		p.change.What |= Content
	}
	if settled && p.change.What == 0 {
		return true
	}
	return w.queue.add(p)
}

// A step is one of the things to do in a directory: a name, or what is below it. Its key
// is the name, and then a slash for what is below, so that paths come in byte order: a,
// a.b, a/c.
type step struct {
	key   string
	below bool
	a, b  fs.Node
}

// below compares what is in the directories at a path. A side can be none, or no
// directory.
func (w *walk) below(path string, a, b fs.Node) bool {
	if !isDir(a) && !isDir(b) {
		return true
	}
	steps := steps(a, b)
	if path != "" {
		path += "/"
	}
	for _, s := range steps {
		if !s.below && !w.self(path+s.key, s.a, s.b) {
			return false
		}
		if s.below && !w.below(path+s.key[:len(s.key)-1], s.a, s.b) {
			return false
		}
	}
	return true
}

// steps returns what there is to do for the names of two directories.
func steps(a, b fs.Node) []step {
	var steps []step
	add := func(name string, x, y fs.Node) {
		steps = append(steps, step{key: name, a: x, b: y})
		if isDir(x) || isDir(y) {
			steps = append(steps, step{key: name + "/", below: true, a: x, b: y})
		}
	}
	i, j := 0, 0
	n, m := children(a), children(b)
	for i < n || j < m {
		var nameA, nameB string
		var x, y fs.Node
		if i < n {
			nameA, x = a.ChildAt(i)
		}
		if j < m {
			nameB, y = b.ChildAt(j)
		}
		switch {
		case j == m || i < n && nameA < nameB:
			add(nameA, x, none)
			i++
		case i == n || nameB < nameA:
			add(nameB, none, y)
			j++
		default:
			add(nameA, x, y)
			i, j = i+1, j+1
		}
	}
	slices.SortFunc(steps, func(s, t step) int { return cmp.Compare(s.key, t.key) })
	return steps
}

func children(n fs.Node) int {
	if n == none {
		return 0
	}
	return n.NumChildren()
}
