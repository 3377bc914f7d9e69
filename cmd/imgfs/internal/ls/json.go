package ls

import (
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
)

// A Listed is a file as --json prints it. docs/json.md has its members.
type Listed struct {
	entry.Entry
	Layer int `json:"layer,omitempty"` // the number of the layer that it comes from, with --layers
}

// beginJSON has the listing be a JSON array of its files, in the order in which they
// would be listed.
func (l *Lister) beginJSON() {
	l.array = show.NewArray(l.w)
	l.o.format, l.o.blocks, l.colors = single, false, nil
}

// printJSON adds the rows of a group to the array. A symlink that should be followed and
// leads nowhere has had its message.
func (l *Lister) printJSON(g *group) {
	for r := range l.look(g.rows) {
		if r.broken {
			continue
		}
		e := Listed{Entry: entry.New(g.path(r), r.node)}
		if l.o.layers {
			e.Layer, _ = l.layerOf(r)
		}
		if err := l.array.Add(e); err != nil {
			return // that of a Write; Flush has it again
		}
	}
}

// path returns where a row is in its image.
func (g *group) path(r row) string {
	if r.arg != nil {
		return entry.Path(r.arg.Path)
	}
	return entry.Path(below(g.dir, r.name))
}
