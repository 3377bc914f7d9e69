package main

import (
	"context"
	"strconv"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/opencontainers/go-digest"
)

// A layerUsage is what a layer takes and does, a line of du --layers.
type layerUsage struct {
	Layer     int           `json:"layer"` // 1 is the base
	Digest    digest.Digest `json:"digest"`
	DiffID    digest.Digest `json:"diffID"`
	Size      int64         `json:"size"` // of the blob
	CreatedBy string        `json:"createdBy"`
	layerEffect
}

// layersUsage prints what each layer of an image adds, replaces and hides, and how many of
// its bytes are of no use any more.
func layersUsage(ctx context.Context, e *env, flags *treeFlags, args []string, exact, json bool) error {
	if len(args) != 1 {
		return cli.Usagef("du: --layers takes one image and no paths")
	}
	if err := wholeImage("du --layers", args[0], ""); err != nil {
		return err
	}
	t, err := e.openTrees("du", flags)
	if err != nil {
		return err
	}
	defer t.close()
	t.survey = true
	return t.each(ctx, []fileArgument{{typed: args[0], image: args[0], path: "/"}}, func(_ fileArgument, img *image.Image) error {
		steps, warning := img.Resolved().History()
		if warning != "" {
			e.Warnf("%s: %s", img.Name(), warning)
		}
		byLayer, changes, rows := layerSteps(steps), t.surveys[img].Layers(), []layerUsage{}
		for i, l := range img.Layers() {
			step := byLayer[i]
			if step.CreatedBy == "" {
				step.CreatedBy = step.Comment
			}
			rows = append(rows, layerUsage{i + 1, l.Digest(), l.DiffID, l.Size(), step.CreatedBy, effectOf(changes[i])})
		}
		if json {
			return show.JSON(e.Stdout, rows)
		}
		return e.printUsage(rows, exact)
	})
}

// printUsage prints layers for people, and their sums.
func (e *env) printUsage(rows []layerUsage, exact bool) error {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "LAYER"}, show.Column{Title: "SIZE"}, show.Column{Title: "ADDS"}, show.Column{Title: "REPLACES", Drop: 1},
		show.Column{Title: "HIDES", Drop: 2}, show.Column{Title: "USELESS"}, show.Column{Title: "COMMAND", Least: 16, CutEnd: true, Drop: 3})
	row := func(name string, r layerUsage) {
		t.Row(name, sizeText(r.Size, exact), countText(r.Added, exact), countText(r.Replaced, exact), countText(r.Hidden, exact),
			sizeText(r.Useless, exact), commandText(r.CreatedBy, ""))
	}
	var all layerUsage
	add := func(to *pathCount, c pathCount) {
		to.Paths, to.Bytes = to.Paths+c.Paths, show.AddSizes(to.Bytes, c.Bytes)
	}
	for _, r := range rows {
		row(strconv.Itoa(r.Layer), r)
		all.Size, all.Useless = show.AddSizes(all.Size, r.Size), show.AddSizes(all.Useless, r.Useless)
		add(&all.Added, r.Added)
		add(&all.Replaced, r.Replaced)
		add(&all.Hidden, r.Hidden)
	}
	row("total", all)
	return t.Print(e.Stdout)
}
