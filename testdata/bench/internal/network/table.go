package network

import (
	"fmt"
	"io"
	"strings"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// A figure is one row of the table: what something took, and what it may take.
type figure struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	// Value is what was measured, in Unit; nil where Missing says why there is
	// nothing.
	Value   *float64 `json:"value,omitempty"`
	Missing string   `json:"missing,omitempty"`
	// Most is what Value should be at most; nil is no wish.
	Most *float64 `json:"most,omitempty"`
	// Note says where Most comes from, or what else was seen.
	Note string `json:"note,omitempty"`
}

// met says whether a figure is what is wanted: "yes", "no", "unknown", or ""
// where nothing is.
func (f *figure) met() string {
	switch {
	case f.Most == nil:
		return ""
	case f.Value == nil:
		return "unknown"
	case *f.Value <= *f.Most:
		return "yes"
	}
	return "**no**"
}

// cells returns the row: figure, measured, wanted, met, note.
func (f *figure) cells() []string {
	measured, wanted := f.Missing, ""
	if f.Value != nil {
		measured = figures.Number(*f.Value, f.Unit)
	}
	if f.Most != nil {
		wanted = "≤ " + figures.Number(*f.Most, f.Unit)
	}
	return []string{f.Name, measured, wanted, f.met(), f.Note}
}

// A part is a section of the report.
type part struct {
	Title   string `json:"title"`
	Command string `json:"command"` // that repeats it alone
}

// A report is all that is printed.
type report struct {
	Machine figures.Machine `json:"machine"`
	Line    string          `json:"line"`
	Image   string          `json:"image"`
	Parts   []part          `json:"parts"`
	Figures []figure        `json:"figures"`
}

// writeMarkdown writes the report as Markdown.
func (r *report) writeMarkdown(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n\n", r.Machine)
	fmt.Fprintf(&s, "Line: %s. Image: %s.\n", r.Line, r.Image)
	missed, unknown := 0, 0
	for _, p := range r.Parts {
		fmt.Fprintf(&s, "\n### %s\n\nTo repeat: `%s`\n\n", p.Title, p.Command)
		figures.WriteHead(&s, "figure", "measured", "wanted", "met", "note")
		for i := range r.Figures {
			f := &r.Figures[i]
			if f.Section != p.Title {
				continue
			}
			figures.WriteRow(&s, f.cells()...)
			switch f.met() {
			case "**no**":
				missed++
			case "unknown":
				unknown++
			}
		}
	}
	fmt.Fprintf(&s, "\n%d figures missed, %d unknown.\n", missed, unknown)
	_, err := io.WriteString(w, s.String())
	return err
}
