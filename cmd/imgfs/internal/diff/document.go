package diff

import (
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/treediff"
)

// A Document is a change, as --json prints it. docs/json.md has its members.
type Document struct {
	Path      string         `json:"path"`
	PathBytes show.NameBytes `json:"pathBytes,omitempty"`
	Kind      string         `json:"kind"`          // treediff.Kind
	What      []string       `json:"what"`          // treediff.What
	Old       *entry.Entry   `json:"old,omitempty"` // missing of what was added
	New       *entry.Entry   `json:"new,omitempty"` // missing of what was removed
}

func newDocument(c located) Document {
	d := Document{Path: c.path(), Kind: c.Kind.String(), What: append([]string{}, c.What.Words()...)}
	if c.Kind != treediff.Added {
		old := entry.New(c.old, c.Old)
		d.Old = &old
	}
	if c.Kind != treediff.Removed {
		n := entry.New(c.new, c.New)
		d.New = &n
	}
	return d
}
