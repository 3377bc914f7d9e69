package explore

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/fs"
)

// A pathIndex has what is below each path of a survey, sorted by name.
type pathIndex struct {
	survey *fs.Survey
	rest   func()
	first  []uint32 // by path: where those below it begin in below, and the end
	below  []int32
}

// roomPaths is how many paths are looked at here and there between two looks at the memory.
const roomPaths = 64

// newPathIndex makes the index. It ends with ctx.
func newPathIndex(ctx context.Context, s *fs.Survey, rest func()) (*pathIndex, error) {
	n := s.NumPaths()
	x := &pathIndex{survey: s, rest: rest, first: make([]uint32, n+2), below: make([]int32, n-1)}
	for i := 1; i < n; i++ {
		if i%roomPaths == 0 && x.over(ctx) {
			return nil, ctx.Err()
		}
		x.first[s.Path(i).Above().Index()+2]++
	}
	for i := 2; i < len(x.first); i++ {
		x.first[i] += x.first[i-1]
	}
	for i := 1; i < n; i++ {
		if i%roomPaths == 0 && x.over(ctx) {
			return nil, ctx.Err()
		}
		at := &x.first[s.Path(i).Above().Index()+1]
		x.below[*at] = int32(i)
		*at++
	}
	x.first = x.first[:n+1]
	for i := range n {
		if i%roomPaths == 0 && x.over(ctx) {
			return nil, ctx.Err()
		}
		n := 0
		slices.SortFunc(x.of(int32(i)), func(a, b int32) int {
			if n++; n%roomPaths == 0 {
				x.rest()
			}
			return strings.Compare(s.Path(int(a)).Name(), s.Path(int(b)).Name())
		})
	}
	return x, nil
}

func (x *pathIndex) of(id int32) []int32 { return x.below[x.first[id]:x.first[id+1]] }

// over reports whether to end. It is called now and then.
func (x *pathIndex) over(ctx context.Context) bool {
	x.rest()
	return ctx.Err() != nil
}

// A pathTree is a source: the paths of an image, after a layer.
type pathTree struct {
	*pathIndex
	layer  int  // the last one that has been applied
	merged bool // no changes are marked: it is the whole image
	only   bool // only what has changed
	shown  bits
	sums   []int64 // of directories with all below them
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) add(i int)      { b[i/64] |= 1 << (i % 64) }

// newPathTree makes the tree of paths after a layer, with what that one changed, or for a
// merged one of the whole image. only leaves out what has not changed: in the layer, or in
// any above the base. It ends with ctx.
func newPathTree(ctx context.Context, x *pathIndex, layer int, merged, only bool) (*pathTree, error) {
	n := x.survey.NumPaths()
	t := &pathTree{pathIndex: x, layer: layer, merged: merged, only: only, shown: make(bits, n/64+1), sums: make([]int64, n)}
	links := newLinkSums()
	for i := range n {
		if i%roomPaths == 0 && x.over(ctx) {
			return nil, ctx.Err()
		}
		node, change, ok := t.state(int32(i))
		switch {
		case !ok || only && merged && !x.survey.Path(i).Touched(0) || only && !merged && change == 0:
			continue
		}
		t.shown.add(i)
		if node.Mode()&syscall.S_IFMT == syscall.S_IFREG {
			links.note(node)
		}
	}
	for i := n - 1; i >= 0; i-- {
		if i%roomPaths == 0 && x.over(ctx) {
			return nil, ctx.Err()
		}
		if !t.shown.has(i) {
			continue
		}
		p := x.survey.Path(i)
		above := p.Above().Index()
		t.shown.add(above)
		node, change, ok := t.state(int32(i))
		if !ok {
			continue // above what is shown
		}
		counts := !only || merged || change != 0 && change != fs.Changed
		if counts && node.Mode()&syscall.S_IFMT == syscall.S_IFREG && !links.several(node, int32(i), change == fs.Hidden) {
			t.sums[i] = node.Attr().Size
		}
		if i > 0 && (change != fs.Hidden || t.hidden(int32(above))) {
			t.sums[above] = addSizes(t.sums[above], t.sums[i])
		}
	}
	links.addTo(t)
	return t, ctx.Err()
}

// addSizes adds sizes, which are claims.
func addSizes(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// state returns what a path is in the tree, or was when the layer took it away.
func (t *pathTree) state(id int32) (n fs.Node, change fs.Change, ok bool) {
	p := t.survey.Path(int(id))
	if !t.merged {
		change = p.Change(t.layer)
	}
	if n, ok = p.After(t.layer); !ok && change == fs.Hidden {
		n, ok = p.After(t.layer - 1)
	}
	return n, change, ok
}

func (t *pathTree) hidden(id int32) bool {
	return !t.merged && t.survey.Path(int(id)).Change(t.layer) == fs.Hidden
}

func (t *pathTree) root() int32           { return 0 }
func (t *pathTree) parent(id int32) int32 { return int32(t.survey.Path(int(id)).Above().Index()) }
func (t *pathTree) name(id int32) string  { return t.survey.Path(int(id)).Name() }
func (t *pathTree) path(id int32) string  { return t.survey.Path(int(id)).String() }

func (t *pathTree) children(id int32, bySize bool) []int32 {
	all := t.of(id)
	shown := make([]int32, 0, len(all))
	for _, c := range all {
		if t.shown.has(int(c)) {
			shown = append(shown, c)
		}
	}
	if bySize {
		slices.SortStableFunc(shown, func(a, b int32) int { return cmp.Compare(t.sums[b], t.sums[a]) })
	}
	return shown
}

func (t *pathTree) count(id int32) int { return len(t.of(id)) }

func (t *pathTree) isDir(id int32) bool {
	n, _, ok := t.state(id)
	return ok && n.Mode()&syscall.S_IFMT == syscall.S_IFDIR || len(t.of(id)) > 0
}

func (t *pathTree) item(id int32) item {
	n, change, ok := t.state(id)
	it := item{mark: markNone, size: t.sums[id]}
	switch change {
	case fs.Added:
		it.mark = markAdded
	case fs.Hidden:
		it.mark = markRemoved
	case fs.Replaced, fs.Changed:
		it.mark = markChanged
	}
	if !ok {
		return it
	}
	switch n.Mode() & syscall.S_IFMT {
	case syscall.S_IFREG:
		it.size = n.Attr().Size // that of a hard link, too
	case syscall.S_IFLNK:
		it.link = n.Target()
	}
	if h := t.survey.Path(int(id)).History(); len(h) > 0 {
		for _, v := range h {
			if v.Layer <= t.layer {
				it.layer = v.Layer + 1
			}
		}
	}
	return it
}

func (t *pathTree) file(id int32) (fs.Node, bool) {
	n, _, ok := t.state(id)
	return n, ok
}

func (t *pathTree) find(path string) int32 { return t.pathIndex.find(path, t.shown) }

// find returns a path that is shown, or the nearest above it.
func (x *pathIndex) find(path string, shown bits) int32 {
	at := int32(0)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		below := x.of(at)
		i, ok := slices.BinarySearchFunc(below, name, func(id int32, name string) int {
			return strings.Compare(x.survey.Path(int(id)).Name(), name)
		})
		if !ok || !shown.has(int(below[i])) {
			break
		}
		at = below[i]
	}
	return at
}
