package explore

import (
	"github.com/imgfs/imgfs/fs"
)

// A source is a tree of rows that a list shows. Its rows have numbers. It is immutable, and
// safe for concurrent use.
type source interface {
	// root is the row that all others are below; it is not shown.
	root() int32
	parent(id int32) int32
	// children returns the rows below one, sorted by name or by size, the largest first.
	// The slice is not to be changed.
	children(id int32, bySize bool) []int32
	// count returns how many rows children returns at most.
	count(id int32) int
	isDir(id int32) bool
	// name is the last name of its path, as the image has it.
	name(id int32) string
	path(id int32) string
	item(id int32) item
	// file returns what can be opened and saved of a row.
	file(id int32) (fs.Node, bool)
	// find returns the row of a path, or the nearest above it that there is.
	find(path string) int32
}

// An item is what a row shows.
type item struct {
	mark  mark
	size  int64
	layer int // 1 is the base; 0: it is not shown
	link  string
	note  string // behind the name
}

// maxMatches is how many rows a search finds at most.
const maxMatches = 100_000

// A matches is what a search has found, in the order of names, and which of them comes
// first behind the row where it began.
type matches struct {
	query string
	ids   []int32
	next  int
	all   bool // there are no more than these
}

// search finds the rows of a source whose name has a text, or whose path if the text has
// a slash. Upper and lower case are the same. It ends when stop says so.
func search(s source, query string, from int32, stop func() bool) *matches {
	m := &matches{query: query, all: true}
	q := newFolded(query)
	type frame struct {
		below []int32
		size  int // of path
	}
	path := []byte{}
	stack := []frame{{s.children(s.root(), false), 0}}
	for n := 0; len(stack) > 0; n++ {
		top := &stack[len(stack)-1]
		if len(top.below) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		if n%512 == 0 && stop() {
			return m
		}
		id := top.below[0]
		top.below = top.below[1:]
		name := s.name(id)
		path = append(append(path[:top.size], '/'), name...)
		if q.slash && q.in(path) || !q.slash && q.in(path[top.size+1:]) {
			if m.ids = append(m.ids, id); len(m.ids) == maxMatches {
				m.all = false
				return m
			}
		}
		if id == from {
			m.next = len(m.ids)
		}
		if s.isDir(id) {
			stack = append(stack, frame{s.children(id, false), len(path)})
		}
	}
	return m
}
