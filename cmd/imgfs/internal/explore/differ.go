package explore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treediff"
)

// maxDifferences is how many paths a comparison of two images shows.
const maxDifferences = 200_000

// A diffTree is a source: what another image has not the same.
type diffTree struct {
	rows   []diffRow
	below  map[int32][]int32
	cut    bool // there are more
	unread int  // files that could not be read
	why    error
	counts [3]int // by kind
}

// A diffRow is a path that is not the same, or one above such.
type diffRow struct {
	name   string
	parent int32
	differ bool
	kind   treediff.Kind
	what   treediff.What
	old    fs.Node
	new    fs.Node
	dir    bool
	sum    int64
}

// newDiffTree compares two trees. It ends with ctx.
func newDiffTree(ctx context.Context, a, b *fs.Tree, opts *treediff.Options) (*diffTree, error) {
	t := &diffTree{rows: []diffRow{{dir: true}}, below: make(map[int32][]int32)}
	known := map[string]int32{"": 0}
	for c, err := range treediff.Compare(ctx, a.Root(), b.Root(), opts) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			t.unread, t.why = t.unread+1, err
		}
		if c.Kind == treediff.Changed && c.What == 0 {
			continue
		}
		if t.counts[c.Kind]++; len(t.rows) >= maxDifferences {
			t.cut = true
			continue
		}
		at := t.add(known, c.Path)
		row := &t.rows[at]
		row.differ, row.kind, row.what, row.old, row.new = true, c.Kind, c.What, c.Old, c.New
		n := c.New
		if c.Kind == treediff.Removed {
			n = c.Old
		}
		if row.dir = n.Mode()&syscall.S_IFMT == syscall.S_IFDIR; !row.dir && n.Mode()&syscall.S_IFMT == syscall.S_IFREG {
			row.sum = n.Attr().Size
		}
	}
	for i := len(t.rows) - 1; i > 0; i-- {
		above := &t.rows[t.rows[i].parent]
		above.sum = addSizes(above.sum, t.rows[i].sum)
	}
	for at := range t.below {
		slices.SortFunc(t.below[at], func(a, b int32) int { return strings.Compare(t.rows[a].name, t.rows[b].name) })
	}
	return t, ctx.Err()
}

// add returns the row of a path, which it makes with those above it.
func (t *diffTree) add(known map[string]int32, path string) int32 {
	if at, ok := known[path]; ok {
		return at
	}
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	above := t.add(known, dir)
	at := int32(len(t.rows))
	t.rows = append(t.rows, diffRow{name: name, parent: above, dir: true})
	t.below[above] = append(t.below[above], at)
	known[path] = at
	return at
}

func (t *diffTree) root() int32           { return 0 }
func (t *diffTree) parent(id int32) int32 { return t.rows[id].parent }
func (t *diffTree) name(id int32) string  { return t.rows[id].name }
func (t *diffTree) count(id int32) int    { return len(t.below[id]) }
func (t *diffTree) isDir(id int32) bool   { return len(t.below[id]) > 0 || t.rows[id].dir }

func (t *diffTree) path(id int32) string {
	if id == 0 {
		return "/"
	}
	return strings.TrimSuffix(t.path(t.parent(id)), "/") + "/" + t.name(id)
}

func (t *diffTree) children(id int32, bySize bool) []int32 {
	list := t.below[id]
	if bySize {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b int32) int { return cmp.Compare(t.rows[b].sum, t.rows[a].sum) })
	}
	return list
}

func (t *diffTree) item(id int32) item {
	r := &t.rows[id]
	it := item{mark: markNone, size: r.sum}
	if !r.differ {
		return it
	}
	it.mark = map[treediff.Kind]mark{treediff.Added: markAdded, treediff.Removed: markRemoved, treediff.Changed: markChanged}[r.kind]
	if r.kind == treediff.Changed {
		it.note = r.what.String()
		if was := r.old.Attr().Size; r.what&treediff.Content != 0 && was != r.sum && !r.dir {
			it.note += fmt.Sprintf(", was %s", size(was))
		}
	}
	return it
}

func (t *diffTree) file(id int32) (fs.Node, bool) {
	r := &t.rows[id]
	switch {
	case !r.differ:
		return fs.Node{}, false
	case r.kind == treediff.Removed:
		return r.old, true
	}
	return r.new, true
}

func (t *diffTree) find(path string) int32 {
	at := int32(0)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		i := slices.IndexFunc(t.below[at], func(id int32) bool { return t.rows[id].name == name })
		if i < 0 {
			break
		}
		at = t.below[at][i]
	}
	return at
}
