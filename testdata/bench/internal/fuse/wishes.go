package fuse

import (
	"cmp"
	"fmt"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// A wish is how many times as much time as imgfs a peer should need, at least.
type wish struct {
	section, row, peer string
	atLeast            float64
	// past, if not empty, limits the wish to mounts where reads go "past" the
	// process that serves, or "to" it.
	past string
}

// wishes are the figures that are wanted. Where imgfs may take as much as n times
// a peer's time, that is one nth.
var wishes = []wish{
	{section: "walk", row: walkCold, peer: nameSquash, atLeast: 2.2},
	{section: "walk", row: walkCold, peer: nameExt4, atLeast: 1 / 1.4},
	{section: "walk", row: walkWarm, peer: nameExt4, atLeast: 1 / 1.1},
	{section: "small", row: smallRow(1, "cold"), peer: nameSquash, atLeast: 1.3},
	{section: "small", row: smallRow(4, "cold"), peer: nameSquash, atLeast: 1.3},
	{section: "small", row: smallRow(1, "warm"), peer: nameExt4, atLeast: 1 / 1.3},
	{section: "small", row: smallRow(4, "warm"), peer: nameExt4, atLeast: 1 / 1.3},
	{section: "big", row: sequential, peer: nameOverlay, atLeast: 1 / 1.15, past: "past"},
	{section: "big", row: sequential, peer: nameSquash, atLeast: 1, past: "to"},
	{section: "big", row: randomMap, peer: nameOverlay, atLeast: 1 / 1.3, past: "past"},
	{section: "packed", row: packedRow(1), peer: nameGzip, atLeast: 0.8},
	{section: "packed", row: packedRow(2), peer: nameGzip, atLeast: 1.5},
	{section: "start", row: startAgain, peer: nameExt4, atLeast: 1 / 1.2},
	{section: "start", row: startLater, peer: nameExt4, atLeast: 1 / 1.2},
}

// figure is the row of a wish for one system, of which nothing is known if
// missing says why.
func (w *wish) figure(system, missing string) figures.Figure {
	return figures.Figure{Name: system + ": " + w.row, Unit: "s", Missing: missing, Peer: w.peer, AtLeast: w.atLeast}
}

// judge makes the figures of a section from its times: for imgfs as it is by
// default, and for each variant those that are about the way that reads go.
func (b *bench) judge(section string) {
	for i := range wishes {
		w := &wishes[i]
		if w.section != section {
			continue
		}
		found := false
		for _, s := range b.here() {
			applies := w.past == "" && s.variant.label == "" || w.past != "" && s.past == (w.past == "past")
			if s.mine && applies {
				b.Add(b.compared(w, s.name))
				found = true
			}
		}
		if !found {
			b.Add(w.figure(nameImgfs, fmt.Sprintf("no mount with reads that go %s the process that serves", w.past)))
		}
	}
}

// compared makes the figure of a wish for one system.
func (b *bench) compared(w *wish, system string) figures.Figure {
	f := w.figure(system, "")
	if row := b.Now.Row(w.row); row != nil {
		f.Ours, f.Theirs = medianOr0(row.Seconds[system]), medianOr0(row.Seconds[w.peer])
	}
	if f.Ours == 0 {
		f.Missing = "not measured"
	}
	if f.Theirs == 0 {
		f.PeerMissing = cmp.Or(b.lacks[w.peer], "not measured")
	}
	return f
}

func medianOr0(seconds []float64) float64 {
	if len(seconds) == 0 {
		return 0
	}
	return figures.Median(seconds)
}
