package fuse

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// A wish is what imgfs's time should be at most, as a share of a peer's.
type wish struct {
	section, row, peer string
	most               float64
	// past, if not empty, limits the wish to mounts where reads go "past" the
	// process that serves, or "to" it.
	past string
}

// wishes are the figures that are wanted. The speed of a peer that should be
// beaten n times is a share of one nth.
var wishes = []wish{
	{section: "walk", row: walkCold, peer: nameSquash, most: 1 / 2.2},
	{section: "walk", row: walkCold, peer: nameExt4, most: 1.4},
	{section: "walk", row: walkWarm, peer: nameExt4, most: 1.1},
	{section: "small", row: smallRow(1, "cold"), peer: nameSquash, most: 1 / 1.3},
	{section: "small", row: smallRow(4, "cold"), peer: nameSquash, most: 1 / 1.3},
	{section: "small", row: smallRow(1, "warm"), peer: nameExt4, most: 1.3},
	{section: "small", row: smallRow(4, "warm"), peer: nameExt4, most: 1.3},
	{section: "big", row: sequential, peer: nameOverlay, most: 1.15, past: "past"},
	{section: "big", row: sequential, peer: nameSquash, most: 1, past: "to"},
	{section: "big", row: randomMap, peer: nameOverlay, most: 1.3, past: "past"},
	{section: "packed", row: packedRow(1), peer: nameGzip, most: 1 / 0.8},
	{section: "packed", row: packedRow(2), peer: nameGzip, most: 1 / 1.5},
	{section: "start", row: startAgain, peer: nameExt4, most: 1.2},
	{section: "start", row: startLater, peer: nameExt4, most: 1.2},
}

func (w *wish) name(system string) string { return fmt.Sprintf("%s: %s, of %s", system, w.row, w.peer) }

// unknown is the figure of a wish for which there is nothing.
func (w *wish) unknown(section, system, why string) figure {
	return figure{Section: section, Name: w.name(system), Unit: "×", Missing: why, Most: &w.most}
}

// A figure is one row of the table of wishes.
type figure struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	// Value is what was measured, in Unit; nil where Missing says why there is
	// nothing.
	Value   *float64 `json:"value,omitempty"`
	Missing string   `json:"missing,omitempty"`
	// Most is what Value should be at most; nil where that depends on what
	// could not be measured.
	Most *float64 `json:"most"`
	Note string   `json:"note,omitempty"`
}

// met says whether a figure is what is wanted: "yes", "no" or "unknown".
func (f *figure) met() string {
	switch {
	case f.Value == nil:
		return "unknown"
	case *f.Value <= *f.Most:
		return "yes"
	}
	return "**no**"
}

// A row is what one thing took.
type row struct {
	Section string               `json:"section"`
	Name    string               `json:"name"`
	Seconds map[string][]float64 `json:"seconds"` // by system, a value a run
}

// A part is a section of the report.
type part struct {
	Title   string `json:"title"`
	Command string `json:"command"` // that repeats it alone
}

// A report is all that is printed.
type report struct {
	Machine figures.Machine   `json:"machine"`
	Parts   []part            `json:"parts"`
	Notes   [][2]string       `json:"notes"`   // a section and a note
	Columns [][2]string       `json:"columns"` // a system's name and what it is
	Lacks   map[string]string `json:"lacks"`   // why a system was left out
	Rows    []*row            `json:"rows"`
	Figures []figure          `json:"figures"`
}

// took adds what one run of something took.
func (b *bench) took(name, system string, d time.Duration) {
	r := b.report.row(b.section, name)
	if r == nil {
		r = &row{Section: b.section, Name: name, Seconds: map[string][]float64{}}
		b.report.Rows = append(b.report.Rows, r)
	}
	r.Seconds[system] = append(r.Seconds[system], d.Seconds())
}

// row returns a row by its name, or nil.
func (r *report) row(section, name string) *row {
	for _, x := range r.Rows {
		if x.Section == section && x.Name == name {
			return x
		}
	}
	return nil
}

func (b *bench) note(format string, args ...any) {
	b.report.Notes = append(b.report.Notes, [2]string{b.section, fmt.Sprintf(format, args...)})
}

// judge makes the figures of a section from its rows: for imgfs as it is by
// default, and for each variant those that are about the way that reads go.
func (b *bench) judge(section string) {
	for i := range wishes {
		w := &wishes[i]
		if w.section != section {
			continue
		}
		found := false
		for _, s := range b.systems {
			applies := w.past == "" && s.variant.label == "" || w.past != "" && s.past == (w.past == "past")
			if s.mine && applies && b.report.Lacks[s.name] == "" {
				b.report.Figures = append(b.report.Figures, b.report.compare(w, b.section, s.name))
				found = true
			}
		}
		if !found {
			b.report.Figures = append(b.report.Figures, w.unknown(b.section, nameImgfs, "no mount with reads that go "+w.past+" the process that serves"))
		}
	}
}

// compare makes the figure of a wish for one system.
func (r *report) compare(w *wish, section, system string) figure {
	if why := r.Lacks[w.peer]; why != "" {
		return w.unknown(section, system, why)
	}
	row := r.row(section, w.row)
	if row == nil || len(row.Seconds[system]) == 0 || len(row.Seconds[w.peer]) == 0 {
		return w.unknown(section, system, "not measured")
	}
	ours, theirs := median(row.Seconds[system]), median(row.Seconds[w.peer])
	ratio := ours / theirs
	return figure{Section: section, Name: w.name(system), Unit: "×", Value: &ratio, Most: &w.most,
		Note: fmt.Sprintf("%s against %s", figures.Number(ours, "s"), figures.Number(theirs, "s"))}
}

// median returns the middle one of some values, or the mean of the two there.
func median[V int64 | float64 | time.Duration](values []V) V {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// writeMarkdown writes the report as Markdown.
func (r *report) writeMarkdown(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", r.Machine)
	for _, c := range r.Columns {
		if why := r.Lacks[c[0]]; why != "" {
			fmt.Fprintf(&s, "\n- %s: left out: %s", c[0], why)
		} else {
			fmt.Fprintf(&s, "\n- %s: %s", c[0], c[1])
		}
	}
	s.WriteString("\n")
	for _, p := range r.Parts {
		r.writePart(&s, p)
	}
	missed, unknown := 0, 0
	for i := range r.Figures {
		switch r.Figures[i].met() {
		case "**no**":
			missed++
		case "unknown":
			unknown++
		}
	}
	fmt.Fprintf(&s, "\n%d figures missed, %d unknown.\n", missed, unknown)
	_, err := io.WriteString(w, s.String())
	return err
}

func (r *report) writePart(s *strings.Builder, p part) {
	fmt.Fprintf(s, "\n### %s\n\nTo repeat: `%s`\n", p.Title, p.Command)
	for _, n := range r.Notes {
		if n[0] == p.Title {
			fmt.Fprintf(s, "\n- %s", n[1])
		}
	}
	s.WriteString("\n\n")
	r.writeTimes(s, p.Title)
	figures.WriteHead(s, "figure", "measured", "wanted", "met", "note")
	for i := range r.Figures {
		f := &r.Figures[i]
		if f.Section != p.Title {
			continue
		}
		measured := f.Missing
		if f.Value != nil {
			measured = figures.Number(*f.Value, f.Unit)
		}
		wanted := ""
		if f.Most != nil {
			wanted = "≤ " + figures.Number(*f.Most, f.Unit)
		}
		figures.WriteRow(s, f.Name, measured, wanted, f.met(), f.Note)
	}
}

// writeTimes writes the table of what each system took, the medians.
func (r *report) writeTimes(s *strings.Builder, section string) {
	var rows []*row
	var columns []string
	for _, x := range r.Rows {
		if x.Section == section {
			rows = append(rows, x)
		}
	}
	if len(rows) == 0 {
		return
	}
	for _, c := range r.Columns {
		if slices.ContainsFunc(rows, func(x *row) bool { return len(x.Seconds[c[0]]) > 0 }) {
			columns = append(columns, c[0])
		}
	}
	figures.WriteHead(s, append([]string{"seconds"}, columns...)...)
	for _, x := range rows {
		cells := []string{x.Name}
		for _, c := range columns {
			cell := ""
			if v := x.Seconds[c]; len(v) > 0 {
				cell = figures.Number(median(v), "")
			}
			cells = append(cells, cell)
		}
		figures.WriteRow(s, cells...)
	}
	s.WriteString("\n")
}
