package diff

import (
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// A stat adds up what was added and removed.
type stat struct {
	rows                    []row
	added, removed, changed int
	grown, shrunk           int64 // bytes of what was added, and of what was removed
	longer, shorter         int64 // bytes by which what was changed has grown, and shrunk
}

// A row is one of the table: a path, or all that is below one.
type row struct {
	name       string
	kind       treediff.Kind
	below      bool // the row is of several paths
	paths      int
	plus, less int64 // bytes on the second side that were not on the first, and the other way round
}

// size returns how many bytes a change has on a side.
func size(n fs.Node) int64 {
	if n == (fs.Node{}) || n.Mode()&unix.S_IFMT == unix.S_IFDIR {
		return 0
	}
	return n.Attr().Size
}

func (s *stat) add(c located, depth int) {
	old, new := size(c.Old), size(c.New)
	var plus, less int64
	switch c.Kind {
	case treediff.Added:
		s.added++
		s.grown = show.AddSizes(s.grown, new)
		plus = new
	case treediff.Removed:
		s.removed++
		s.shrunk = show.AddSizes(s.shrunk, old)
		less = old
	default:
		s.changed++
		plus, less = max(0, new-old), max(0, old-new)
		s.longer, s.shorter = show.AddSizes(s.longer, plus), show.AddSizes(s.shorter, less)
	}
	name, below := upTo(c.path(), depth)
	if n := len(s.rows); n > 0 && depth > 0 && s.rows[n-1].name == name {
		r := &s.rows[n-1]
		r.below, r.paths = true, r.paths+1
		r.plus, r.less = show.AddSizes(r.plus, plus), show.AddSizes(r.less, less)
		return
	}
	s.rows = append(s.rows, row{name, c.Kind, below, 1, plus, less})
}

// upTo returns the first names of a path, at most depth of them, and whether there are
// more; 0 is all.
func upTo(path string, depth int) (name string, more bool) {
	if depth == 0 {
		return path, false
	}
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if depth--; depth == 0 {
			return path[:i], true
		}
	}
	return path, false
}

// barWidth is how many columns the longest bar has.
const barWidth = 20

func (r *Reporter) printStat() error {
	s := &r.stat
	if len(s.rows) == 0 {
		return nil
	}
	var most int64
	for _, row := range s.rows {
		most = max(most, show.AddSizes(row.plus, row.less))
	}
	t := show.NewTable(r.Width, show.Column{Least: 16}, show.Column{}, show.Column{}, show.Column{Drop: 1})
	for _, row := range s.rows {
		kind, name := letters[row.kind], printable.Name(row.name)
		count := ""
		if row.below {
			kind, count = "~", show.Count(row.paths, "path")
			name += "/"
		}
		t.Row(kind+" "+name, count, r.signed(row.plus, row.less), bar(row.plus, row.less, most))
	}
	if err := t.Print(r.w); err != nil {
		return err
	}
	parts := []string{}
	part := func(n int, word, bytes string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", n, word, bytes))
		}
	}
	part(s.added, "added", r.signed(s.grown, 0))
	part(s.removed, "removed", r.signed(0, s.shrunk))
	part(s.changed, "changed", r.signed(max(0, s.longer-s.shorter), max(0, s.shorter-s.longer)))
	total := s.added + s.removed + s.changed
	return r.writeLine(fmt.Sprintf("%s differ: %s", show.Count(total, "path"), strings.Join(parts, ", ")))
}

// signed writes how many bytes came and went.
func (r *Reporter) signed(plus, less int64) string {
	write := show.Bytes
	if r.Exact {
		write = func(n int64) string { return fmt.Sprint(n) }
	}
	switch {
	case plus > 0 && less > 0:
		return "+" + write(plus) + " -" + write(less)
	case plus > 0:
		return "+" + write(plus)
	case less > 0:
		return "-" + write(less)
	}
	return write(0)
}

// bar draws bytes that came and went, of which a row has most.
func bar(plus, less, most int64) string {
	length := func(n int64) int {
		if n == 0 {
			return 0
		}
		return 1 + int(float64(n)/float64(most)*(barWidth-2))
	}
	return strings.Repeat("+", length(plus)) + strings.Repeat("-", length(less))
}
