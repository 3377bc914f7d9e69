package explore

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
)

// maxWaste is how many wasted files are listed: the largest.
const maxWaste = 10_000

// A wasteList is a source: files that layers bring and later ones replace or remove, the
// largest first.
type wasteList struct {
	list  []fs.Waste
	ids   []int32 // of all rows
	names []int32 // sorted by path
	cut   bool
	total int64
}

// A wasteHeap has the smallest file first.
type wasteHeap []fs.Waste

func (h wasteHeap) Len() int           { return len(h) }
func (h wasteHeap) Less(i, j int) bool { return h[i].Bytes < h[j].Bytes }
func (h wasteHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *wasteHeap) Push(x any)        { *h = append(*h, x.(fs.Waste)) }
func (h *wasteHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// newWasteList makes the list. It ends with ctx.
func newWasteList(ctx context.Context, s *fs.Survey, rest func()) (*wasteList, error) {
	var h wasteHeap
	l := &wasteList{}
	n := 0
	for w := range s.Wasted() {
		if n++; n%512 == 0 {
			if rest(); ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		l.total = addSizes(l.total, w.Bytes)
		if w.Bytes == 0 {
			continue
		}
		if heap.Push(&h, w); len(h) > maxWaste {
			heap.Pop(&h)
			l.cut = true
		}
	}
	l.list = h
	paths := make(map[fs.Path]string, len(h))
	for _, w := range h {
		paths[w.Path] = w.Path.String()
	}
	slices.SortFunc(l.list, func(a, b fs.Waste) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(paths[a.Path], paths[b.Path]), cmp.Compare(a.Layer, b.Layer))
	})
	for i := range l.list {
		l.ids = append(l.ids, int32(i))
	}
	l.names = slices.Clone(l.ids)
	slices.SortStableFunc(l.names, func(a, b int32) int {
		return strings.Compare(paths[l.list[a].Path], paths[l.list[b].Path])
	})
	return l, ctx.Err()
}

func (l *wasteList) root() int32          { return -1 }
func (l *wasteList) parent(int32) int32   { return -1 }
func (l *wasteList) isDir(int32) bool     { return false }
func (l *wasteList) count(int32) int      { return 0 } // they are sorted
func (l *wasteList) name(id int32) string { return strings.TrimPrefix(l.path(id), "/") }

func (l *wasteList) path(id int32) string {
	if id < 0 {
		return "/"
	}
	return l.list[id].Path.String()
}

func (l *wasteList) children(id int32, bySize bool) []int32 {
	switch {
	case id >= 0:
		return nil
	case bySize:
		return l.ids
	}
	return l.names
}

func (l *wasteList) item(id int32) item {
	w := l.list[id]
	it := item{mark: markRemoved, size: w.Bytes, layer: w.Layer + 1, note: fmt.Sprintf("by layer %d", w.By+1)}
	if w.Change == fs.Replaced {
		it.mark = markChanged
	}
	return it
}

func (l *wasteList) file(id int32) (fs.Node, bool) {
	w := l.list[id]
	return w.Path.After(w.By - 1)
}

func (l *wasteList) find(path string) int32 {
	for i, w := range l.list {
		if w.Path.String() == path {
			return int32(i)
		}
	}
	return -1
}
