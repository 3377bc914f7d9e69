package explore

import "slices"

// A list shows the rows of a source, with those below directories that are open.
type list struct {
	source source
	bySize bool
	open   map[int32]bool
	rows   []listRow
	cursor int
	top    int // the first row that is shown
	height int // rows that there is room for

	// Sorting many rows by size takes longer than a key may. They are shown by name until
	// somebody has done it in the background.
	sorted   map[int32][]int32 // what is below large directories, by size
	unsorted map[int32]bool    // directories that are to be in sorted
}

// sortNow is how many rows are sorted by size at once.
const sortNow = 20_000

type listRow struct {
	id    int32
	depth int32
}

// set shows another source. path is where the cursor goes; directories that both have stay
// open.
func (l *list) set(s source, path string) {
	var opened []string
	if l.source != nil {
		for id := range l.open {
			opened = append(opened, l.source.path(id))
		}
	}
	l.source, l.open, l.cursor, l.top = s, make(map[int32]bool), 0, 0
	l.sorted, l.unsorted = make(map[int32][]int32), make(map[int32]bool)
	for _, p := range opened {
		if id := s.find(p); id != s.root() && s.path(id) == p {
			l.open[id] = true
		}
	}
	l.rows = nil
	l.build()
	if path != "" {
		l.reveal(s.find(path))
	}
}

// build makes the rows.
func (l *list) build() {
	l.rows = l.rows[:0]
	if l.source != nil {
		l.rows = l.appendBelow(l.rows, l.source.root(), 0)
	}
	l.move(0)
}

func (l *list) appendBelow(rows []listRow, id, depth int32) []listRow {
	type frame struct {
		below []int32
		depth int32
	}
	stack := []frame{{l.below(id), depth}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.below) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		id := top.below[0]
		top.below = top.below[1:]
		rows = append(rows, listRow{id, top.depth})
		if l.open[id] {
			stack = append(stack, frame{l.below(id), top.depth + 1})
		}
	}
	return rows
}

// below returns the rows below one as they are shown now.
func (l *list) below(id int32) []int32 {
	if !l.bySize || l.source.count(id) <= sortNow {
		return l.source.children(id, l.bySize)
	}
	if sorted, ok := l.sorted[id]; ok {
		return sorted
	}
	l.unsorted[id] = true
	return l.source.children(id, false)
}

// current returns the row of the cursor.
func (l *list) current() (id int32, ok bool) {
	if l.cursor >= len(l.rows) {
		return 0, false
	}
	return l.rows[l.cursor].id, true
}

// path returns the path of the row of the cursor.
func (l *list) path() string {
	if id, ok := l.current(); ok {
		return l.source.path(id)
	}
	return ""
}

// move moves the cursor by so many rows.
func (l *list) move(by int) {
	l.cursor = max(0, min(l.cursor+by, len(l.rows)-1))
	l.scroll()
}

// scroll brings the cursor into what is shown.
func (l *list) scroll() {
	h := max(l.height, 1)
	l.top = max(0, min(l.top, len(l.rows)-h))
	l.top = min(l.top, l.cursor)
	l.top = max(l.top, l.cursor-h+1)
}

// wheel moves what is shown by so many rows, and the cursor if it would leave that.
func (l *list) wheel(by int) {
	h := max(l.height, 1)
	l.top = max(0, min(l.top+by, len(l.rows)-h))
	l.cursor = max(min(l.cursor, l.top+h-1), l.top)
	l.move(0)
}

// toggle opens or closes the directory of the cursor, if it is one that the argument says.
func (l *list) toggle(open bool) bool {
	id, ok := l.current()
	if !ok || !l.source.isDir(id) || l.open[id] == open {
		return false
	}
	depth := l.rows[l.cursor].depth
	if open {
		l.open[id] = true
		l.rows = slices.Insert(l.rows, l.cursor+1, l.appendBelow(nil, id, depth+1)...)
	} else {
		delete(l.open, id)
		end := l.cursor + 1
		for end < len(l.rows) && l.rows[end].depth > depth {
			end++
		}
		l.rows = slices.Delete(l.rows, l.cursor+1, end)
	}
	l.move(0)
	return true
}

// depth is how deep the row of the cursor is.
func (l *list) depth() int32 {
	if l.cursor >= len(l.rows) {
		return 0
	}
	return l.rows[l.cursor].depth
}

// up moves the cursor to the directory that holds its row.
func (l *list) up() {
	if l.cursor >= len(l.rows) {
		return
	}
	depth := l.rows[l.cursor].depth
	for i := l.cursor; i >= 0; i-- {
		if l.rows[i].depth < depth {
			l.move(i - l.cursor)
			return
		}
	}
}

// collapse closes all directories. The cursor stays in the one that it was below.
func (l *list) collapse() {
	if l.source == nil {
		return
	}
	for l.cursor < len(l.rows) && l.rows[l.cursor].depth > 0 {
		l.up()
	}
	id, ok := l.current()
	clear(l.open)
	l.build()
	if ok {
		l.put(id)
	}
}

// put moves the cursor to a row that is shown.
func (l *list) put(id int32) {
	if i := slices.IndexFunc(l.rows, func(r listRow) bool { return r.id == id }); i >= 0 {
		l.move(i - l.cursor)
	}
}

// reveal opens what is above a row, and moves the cursor there.
func (l *list) reveal(id int32) {
	root := l.source.root()
	if id == root {
		return
	}
	closed := false
	for at := l.source.parent(id); at != root; at = l.source.parent(at) {
		closed = closed || !l.open[at]
		l.open[at] = true
	}
	if closed {
		l.build()
	}
	l.put(id)
}

// sort sorts the rows anew.
func (l *list) sort(bySize bool) {
	id, ok := l.current()
	l.bySize = bySize
	l.build()
	if ok {
		l.put(id)
	}
}
