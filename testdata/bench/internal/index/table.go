package index

import (
	"fmt"
	"io"
	"strings"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/opencontainers/go-digest"
)

// A figure is one row of the table: what we need for something, and what a
// peer needs for the same.
type figure struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	// Ours is what we measured, in Unit. It is 0 where Missing says why.
	Ours float64 `json:"ours"`
	// Peer is whom we are compared with, "" for nobody; PeerValue is in Unit,
	// and 0 where Missing says why there is none.
	Peer      string  `json:"peer,omitempty"`
	PeerValue float64 `json:"peerValue,omitempty"`
	Missing   string  `json:"missing,omitempty"`
	// WantRatio is how many times as good as the peer we should be, at
	// least; WantMost is what ours should be at most. 0 means no such wish.
	WantRatio float64 `json:"wantRatio,omitempty"`
	WantMost  float64 `json:"wantMost,omitempty"`
}

// ratio returns how many times as much the peer needs, 0 if that is not known.
func (f *figure) ratio() float64 {
	if f.Ours == 0 || f.PeerValue == 0 {
		return 0
	}
	return f.PeerValue / f.Ours
}

// met says whether a figure is what is wanted: "yes", "no", "unknown", or ""
// where nothing is.
func (f *figure) met() string {
	verdict := map[bool]string{true: "yes", false: "**no**"}
	switch {
	case f.WantRatio != 0 && f.ratio() != 0:
		return verdict[f.ratio() >= f.WantRatio]
	case f.WantMost != 0 && f.Ours != 0:
		return verdict[f.Ours <= f.WantMost]
	case f.WantRatio != 0 || f.WantMost != 0:
		return "unknown"
	}
	return ""
}

// cells returns the row: figure, ours, peer, ratio, wanted, met.
func (f *figure) cells() []string {
	ours, peer, ratio, wanted := figures.Number(f.Ours, f.Unit), f.Peer, "", ""
	if f.Ours == 0 && f.Missing != "" {
		ours = f.Missing
	}
	switch {
	case f.PeerValue != 0:
		peer += " " + figures.Number(f.PeerValue, f.Unit)
	case f.Peer != "" && f.Missing != "":
		peer += ": " + f.Missing
	}
	if r := f.ratio(); r != 0 {
		ratio = fmt.Sprintf("%.2f", r)
	}
	switch {
	case f.WantRatio != 0:
		wanted = fmt.Sprintf("≥ %.2f ×", f.WantRatio)
	case f.WantMost != 0:
		wanted = "≤ " + figures.Number(f.WantMost, f.Unit)
	}
	return []string{f.Name, ours, peer, ratio, wanted, f.met()}
}

// An inputRow is what the report says of an input.
type inputRow struct {
	Name    string        `json:"name"`
	What    string        `json:"what"`
	Digest  digest.Digest `json:"digest"`
	Size    int64         `json:"size"`
	TarSize int64         `json:"tarSize"`
}

// A report is all that is printed.
type report struct {
	Machine figures.Machine `json:"machine"`
	Corpora bool            `json:"corpora"` // whether the lab's images were there
	Command string          `json:"command"`
	Inputs  []inputRow      `json:"inputs"`
	Figures []figure        `json:"figures"`
}

// writeMarkdown writes the report as Markdown.
func (r *report) writeMarkdown(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n\n", r.Machine)
	environment := ""
	if r.Corpora {
		environment = "CORPORA=… "
	}
	fmt.Fprintf(&s, "To repeat: `%s%s`\n\n", environment, r.Command)
	figures.WriteHead(&s, "input", "what", "blob", "tar", "compressed")
	for _, in := range r.Inputs {
		figures.WriteRow(&s, in.Name, in.What, figures.Number(float64(in.Size)/1e6, "MB"), figures.Number(float64(in.TarSize)/1e6, "MB"), fmt.Sprintf("%.2f : 1", float64(in.TarSize)/float64(in.Size)))
	}
	section, missed, unknown := "", 0, 0
	for i := range r.Figures {
		f := &r.Figures[i]
		if f.Section != section {
			section = f.Section
			fmt.Fprintf(&s, "\n## %s\n\n", section)
			figures.WriteHead(&s, "figure", "ours", "peer", "ratio", "wanted", "met")
		}
		figures.WriteRow(&s, f.cells()...)
		switch f.met() {
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
