package figures

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Report is all that the bench prints.
type Report struct {
	Machine Machine  `json:"machine"`
	Groups  []*Group `json:"groups"`
}

// A Group is a part of the report: sections with the same images and peers.
type Group struct {
	Name     string     `json:"name"`
	Title    string     `json:"title"`
	Notes    []string   `json:"notes"`
	Systems  []System   `json:"systems,omitempty"`
	Sections []*Section `json:"sections"`
}

// A System is a column of the tables of times.
type System struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Lacks says why the system was left out; "" if it was not.
	Lacks string `json:"lacks,omitempty"`
}

// A Section is one measurement with its tables.
type Section struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Command string   `json:"command"` // that repeats it alone
	Notes   []string `json:"notes,omitempty"`
	Times   []*Times `json:"times,omitempty"`
	Figures []Figure `json:"figures"`
}

// Times are the durations of one measurement: by system, a value a run.
type Times struct {
	Name    string               `json:"name"`
	Seconds map[string][]float64 `json:"seconds"`
}

// Add puts figures into the section.
func (s *Section) Add(f ...Figure) { s.Figures = append(s.Figures, f...) }

// Note puts a line below the section's title.
func (s *Section) Note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// Took adds the duration of one run to the row of a name and the column of a
// system.
func (s *Section) Took(name, system string, d time.Duration) {
	t := s.Row(name)
	if t == nil {
		t = &Times{Name: name, Seconds: map[string][]float64{}}
		s.Times = append(s.Times, t)
	}
	t.Seconds[system] = append(t.Seconds[system], d.Seconds())
}

// Row returns the times of a name, or nil.
func (s *Section) Row(name string) *Times {
	for _, t := range s.Times {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// A Figure is one row of a section's table: the need of imgfs, the need of a peer
// for the same, and a wish.
type Figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Ours is the need of imgfs in Unit. It means nothing if Missing is set, which
	// is the reason why it was not measured.
	Ours    float64 `json:"ours"`
	Missing string  `json:"missing,omitempty"`
	// Peer names the peer, "" if there is none. Theirs is its need in Unit, or 0
	// if it was not measured; PeerMissing is the reason.
	Peer        string  `json:"peer,omitempty"`
	Theirs      float64 `json:"theirs,omitempty"`
	PeerMissing string  `json:"peerMissing,omitempty"`
	// AtLeast is how many times as much as imgfs the peer should need; 0 is no
	// wish.
	AtLeast float64 `json:"atLeast,omitempty"`
	// AtMost is the most that Ours should be; nil is no wish.
	AtMost *float64 `json:"atMost,omitempty"`
	// Note is free text: the origin of a wish, or other observations.
	Note string `json:"note,omitempty"`
}

// Most returns a Figure's AtMost.
func Most(v float64) *float64 { return &v }

// Ratio returns how many times as much as imgfs the peer needs, 0 if that is not
// known.
func (f *Figure) Ratio() float64 {
	if f.Ours == 0 || f.Theirs == 0 {
		return 0
	}
	return f.Theirs / f.Ours
}

// Met says whether the wish is fulfilled: "yes", "**no**", "unknown", or "" if
// there is none.
func (f *Figure) Met() string {
	verdict := map[bool]string{true: "yes", false: "**no**"}
	switch {
	case f.AtLeast == 0 && f.AtMost == nil:
		return ""
	case f.Missing != "" || f.AtLeast != 0 && f.Ratio() == 0:
		return "unknown"
	case f.AtLeast != 0:
		return verdict[f.Ratio() >= f.AtLeast]
	}
	return verdict[f.Ours <= *f.AtMost]
}

// head is the first row of all tables of figures.
var head = []string{"figure", "ours", "peer", "ratio", "wanted", "met", "note"}

// cells returns the row below head.
func (f *Figure) cells() []string {
	ours, peer, ratio, wanted := Number(f.Ours, f.Unit), f.Peer, "", ""
	if f.Missing != "" {
		ours = f.Missing
	}
	switch {
	case f.PeerMissing != "":
		peer += ": " + f.PeerMissing
	case f.Theirs != 0:
		peer += " " + Number(f.Theirs, f.Unit)
	}
	if r := f.Ratio(); r != 0 {
		ratio = fmt.Sprintf("%.2f", r)
	}
	switch {
	case f.AtLeast != 0:
		wanted = fmt.Sprintf("≥ %.2f ×", f.AtLeast)
	case f.AtMost != nil:
		wanted = "≤ " + Number(*f.AtMost, f.Unit)
	}
	return []string{f.Name, ours, peer, ratio, wanted, f.Met(), f.Note}
}

// WriteMarkdown writes the report as Markdown.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", r.Machine)
	met := map[string]int{}
	for _, g := range r.Groups {
		g.write(&s)
		for _, section := range g.Sections {
			for i := range section.Figures {
				met[section.Figures[i].Met()]++
			}
		}
	}
	fmt.Fprintf(&s, "\n%d figures missed, %d unknown.\n", met["**no**"], met["unknown"])
	_, err := io.WriteString(w, s.String())
	return err
}

func (g *Group) write(s *strings.Builder) {
	fmt.Fprintf(s, "\n## %s\n", g.Title)
	notes := slices.Clone(g.Notes)
	for _, c := range g.Systems {
		if c.Lacks != "" {
			c.Title = "left out: " + c.Lacks
		}
		notes = append(notes, c.Name+": "+c.Title)
	}
	writeNotes(s, notes)
	for _, section := range g.Sections {
		fmt.Fprintf(s, "\n### %s\n\nTo repeat: `%s`\n", section.Title, section.Command)
		writeNotes(s, section.Notes)
		section.writeTimes(s, g.Systems)
		if len(section.Figures) > 0 {
			s.WriteString("\n")
			WriteHead(s, head...)
		}
		for i := range section.Figures {
			WriteRow(s, section.Figures[i].cells()...)
		}
	}
}

func writeNotes(s *strings.Builder, notes []string) {
	for i, n := range notes {
		if i == 0 {
			s.WriteString("\n")
		}
		fmt.Fprintf(s, "- %s\n", n)
	}
}

// writeTimes writes the table of medians, a column a system.
func (s *Section) writeTimes(out *strings.Builder, systems []System) {
	if len(s.Times) == 0 {
		return
	}
	measured := map[string]bool{}
	for _, t := range s.Times {
		for system := range maps.Keys(t.Seconds) {
			measured[system] = true
		}
	}
	columns := []string{"seconds"}
	for _, c := range systems {
		if measured[c.Name] {
			columns = append(columns, c.Name)
		}
	}
	out.WriteString("\n")
	WriteHead(out, columns...)
	for _, t := range s.Times {
		cells := []string{t.Name}
		for _, c := range columns[1:] {
			cell := ""
			if v := t.Seconds[c]; len(v) > 0 {
				cell = Number(Median(v), "")
			}
			cells = append(cells, cell)
		}
		WriteRow(out, cells...)
	}
}

// WriteJSON writes the report as one object that people can read, too.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Median returns the middle one of some values, or the mean of the two there.
func Median[V int64 | float64 | time.Duration](values []V) V {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
