package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

// historyFlags are the flags of history.
type historyFlags struct {
	noTrunc, bytes, human, json bool
}

func historyCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "history",
		Usage: "[FLAGS] IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "print the layers and how they were made"},
		About: `Prints the steps in which the image was made, the newest first, as docker does:
the number of the layer that a step made (1 is the base), the size of its blob,
how many files it adds or replaces and how many it hides, with their bytes and
those of all that is below them. A step without a number made no layer.`,
		Notes:      "Where the indexes of the layers are in the cache no layer is fetched.",
		Example:    "imgfs history --no-trunc fedora:latest",
		OtherFlags: map[string]string{"--format": "--json", "-H": "--human", "--notruncate": "--no-trunc"},
		Setup: func(f *pflag.FlagSet) cli.Action {
			var flags historyFlags
			f.BoolVar(&flags.noTrunc, "no-trunc", false, "whole digests and commands, however wide")
			f.BoolVar(&flags.bytes, "bytes", false, "sizes as numbers of bytes")
			f.BoolVar(&flags.json, "json", false, "print JSON")
			f.BoolVar(&flags.human, "human", true, "")
			f.Lookup("human").Hidden = true // docker's way to say --bytes
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("history: one image is needed")
				}
				if err := wholeImage("history", args[0], ""); err != nil {
					return err
				}
				flags.bytes = flags.bytes || !flags.human
				return history(ctx, e, args[0], &flags)
			}
		},
	}
}

// A historyRow is one step in the making of an image.
type historyRow struct {
	Layer     int           `json:"layer,omitempty"` // 1 is the base; 0: the step made none
	Created   string        `json:"created,omitempty"`
	CreatedBy string        `json:"createdBy"`
	Author    string        `json:"author,omitempty"`
	Comment   string        `json:"comment,omitempty"`
	Size      int64         `json:"size"`
	Digest    digest.Digest `json:"digest,omitempty"`
	DiffID    digest.Digest `json:"diffID,omitempty"`
	layerEffect
}

func history(ctx context.Context, e *env, name string, flags *historyFlags) error {
	rows, err := e.historyRows(ctx, name, "history")
	if err != nil {
		return err
	}
	if flags.json {
		return show.JSON(e.Stdout, rows)
	}
	return e.printHistory(rows, flags)
}

// historyRows returns the steps in which an image was made, the newest first.
func (e *env) historyRows(ctx context.Context, name, command string) ([]historyRow, error) {
	t, err := e.openTrees(command, nil)
	if err != nil {
		return nil, err
	}
	defer t.close()
	t.survey = true
	var rows []historyRow
	err = t.each(ctx, []fileArgument{{typed: name, image: name, path: "/"}}, func(_ fileArgument, img *image.Image) error {
		steps, warning := img.Resolved().History()
		if warning != "" {
			e.Warnf("%s: %s", img.Name(), warning)
		}
		changes, layers := t.surveys[img].Layers(), img.Layers()
		for _, s := range steps {
			row := stepRow(s)
			if s.Layer >= 0 {
				l := layers[s.Layer]
				row.Size, row.Digest, row.DiffID = l.Size(), l.Digest(), l.DiffID
				row.layerEffect = effectOf(changes[s.Layer])
			}
			rows = append(rows, row)
		}
		return nil
	})
	slices.Reverse(rows)
	return rows, err
}

func stepRow(s remote.Step) historyRow {
	row := historyRow{Layer: s.Layer + 1, CreatedBy: s.CreatedBy, Author: s.Author, Comment: s.Comment}
	if !s.Created.IsZero() {
		row.Created = s.Created.UTC().Format(time.RFC3339Nano)
	}
	return row
}

// printHistory prints steps for people.
func (e *env) printHistory(rows []historyRow, flags *historyFlags) error {
	width := e.tableWidth()
	command := show.Column{Title: "COMMAND", Least: 16, CutEnd: true, Drop: 5}
	if flags.noTrunc {
		width, command = 0, show.Column{Title: "COMMAND"}
	}
	bar, bars := show.Column{Title: "SHARE", Drop: 4}, width > 0 && e.width() > 0 // bars are for terminals
	columns := []show.Column{{Title: "LAYER"}, {Title: "SIZE"}, bar, {Title: "DIGEST", Drop: 2}, {Title: "DIFFID", Drop: 1},
		{Title: "CREATED", Drop: 3}, {Title: "ADDS"}, {Title: "HIDES"}, command}
	all := int64(0)
	for _, r := range rows {
		all = show.AddSizes(all, r.Size)
	}
	shown := func(cells []string) []string { return cells }
	if !bars {
		columns = append(columns[:2:2], columns[3:]...)
		shown = func(cells []string) []string { return append(cells[:2:2], cells[3:]...) }
	}
	t := show.NewTable(width, columns...)
	for _, r := range rows {
		cells := []string{"-", "-", "", "-", "-", created(r.Created), "-", "-", commandCell(r, flags.noTrunc)}
		if r.Layer > 0 {
			cells[0], cells[1], cells[2] = strconv.Itoa(r.Layer), sizeText(r.Size, flags.bytes), shareBar(r.Size, all)
			cells[3], cells[4] = show.ShortDigest(r.Digest), show.ShortDigest(r.DiffID)
			if flags.noTrunc {
				cells[3], cells[4] = printable.Cell(r.Digest.String()), printable.Cell(r.DiffID.String())
			}
			brought := pathCount{r.Added.Paths + r.Replaced.Paths, show.AddSizes(r.Added.Bytes, r.Replaced.Bytes)}
			cells[6], cells[7] = countText(brought, flags.bytes), countText(r.Hidden, flags.bytes)
		}
		t.Row(shown(cells)...)
	}
	return t.Print(e.Stdout)
}

// commandCell returns the command of a step: as it is, but for newlines, or short.
func commandCell(r historyRow, whole bool) string {
	if whole {
		return printable.Text(strings.Join(strings.Fields(cmp.Or(r.CreatedBy, r.Comment)), " "))
	}
	return commandText(r.CreatedBy, r.Comment)
}

// created returns the day of a time, if it is one that people have.
func created(t string) string {
	if day, _, ok := strings.Cut(t, "T"); ok {
		return printable.Cell(day)
	}
	return "-"
}

// shareBar draws the part of a whole in eight columns.
func shareBar(part, whole int64) string {
	const columns = 8
	if whole <= 0 || part <= 0 {
		return ""
	}
	n := int(float64(part)/float64(whole)*columns + 0.5)
	return strings.Repeat("#", min(n, columns))
}
