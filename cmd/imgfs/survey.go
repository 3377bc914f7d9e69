package main

import (
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
)

// A layerEffect is what a layer does to the tree of those below it, as --json has it.
type layerEffect struct {
	Added    pathCount `json:"added"`
	Replaced pathCount `json:"replaced"`
	Hidden   pathCount `json:"hidden"`
	Changed  int       `json:"changed"`
	Useless  int64     `json:"useless"`
}

type pathCount struct {
	Paths int   `json:"paths"`
	Bytes int64 `json:"bytes"`
}

func effectOf(l fs.LayerChanges) layerEffect {
	count := func(c fs.Count) pathCount { return pathCount{c.Names, c.Bytes} }
	return layerEffect{count(l.Added), count(l.Replaced), count(l.Hidden), l.Changed, l.Useless}
}

// sizeText returns how a table writes a number of bytes: as it is, or for people.
func sizeText(n int64, exact bool) string {
	if exact {
		return strconv.FormatInt(n, 10)
	}
	return show.Bytes(n)
}

// countText returns how a table writes paths and their bytes.
func countText(c pathCount, exact bool) string {
	if c.Paths == 0 {
		return "-"
	}
	return strconv.Itoa(c.Paths) + ", " + sizeText(c.Bytes, exact)
}

// layerSteps returns the steps of an image that made layers, by the positions of these.
func layerSteps(steps []remote.Step) map[int]remote.Step {
	byLayer := make(map[int]remote.Step)
	for _, s := range steps {
		if s.Layer >= 0 {
			byLayer[s.Layer] = s
		}
	}
	return byLayer
}

// commandText returns the command of a step for people: in one line, and without what
// builders put around each.
func commandText(createdBy, comment string) string {
	text := strings.Join(strings.Fields(createdBy), " ")
	if text == "" {
		text = strings.Join(strings.Fields(comment), " ")
	}
	text = strings.TrimSuffix(text, " # buildkit")
	if rest, ok := strings.CutPrefix(text, "/bin/sh -c #(nop) "); ok {
		text = rest
	} else if rest, ok := strings.CutPrefix(text, "/bin/sh -c "); ok {
		text = "RUN " + rest
	} else if rest, ok := strings.CutPrefix(text, "RUN /bin/sh -c "); ok {
		text = "RUN " + rest
	}
	return printable.Line(text)
}
