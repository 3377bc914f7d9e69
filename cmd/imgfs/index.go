package main

import (
	"context"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/containerd"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

func indexCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "index",
		Usage: "[FLAGS] IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "index layers ahead of time; also: index push, profile"},
		About: `Gets ready what mounting needs: reads the image's layers once, as far as
that has not been done and nobody has published an index of them. Prints a row
for each layer, the base first.

Indexes are published where --index-repo HOST/PATH says (IMGFS_INDEX_REPO).
--index-trust=local uses no indexes that others made, bound those that the
image's manifest has the digests of, repos those of --index-repo, published
all of them; without it those that are bound, and those of --index-repo.`,
		Example:  "imgfs index fedora:latest",
		Commands: []cli.Command{indexPushCommand(e)},
		Setup: func(f *pflag.FlagSet) cli.Action {
			fetch := f.Bool("fetch", false, "bring all of the image into the cache, for use with --offline; it\n"+
				"can be interrupted and goes on the next time")
			e.bytesFlag(f)
			e.credentialsFlag(f)
			merged := f.Bool(containerd.MergedFlag, false, "")
			f.Lookup(containerd.MergedFlag).Hidden = true
			asJSON := f.Bool("json", false, "an array of objects instead of a table: docs/json.md")
			return func(ctx context.Context, args []string) error {
				switch {
				case len(args) != 1:
					return cli.Usagef("index: one image is needed")
				case *fetch && e.offline:
					return offlineHint(f, cli.Usagef("index: --fetch and --offline exclude each other"))
				}
				if err := wholeImage("index", args[0], ""); err != nil {
					return err
				}
				return index(ctx, e, args[0], *fetch, *merged, *asJSON)
			}
		},
	}
}

// An indexRow is a layer in the output of imgfs index.
type indexRow struct {
	Digest     digest.Digest `json:"digest"`
	DiffID     digest.Digest `json:"diffID"`
	Codec      string        `json:"codec"`
	Size       int64         `json:"size"`       // of the blob
	TarSize    int64         `json:"tarSize"`    // uncompressed; 0: the index does not say
	Entries    int           `json:"entries"`    // of the tar
	Spans      int           `json:"spans"`      // pieces that decode on their own
	IndexBytes int64         `json:"indexBytes"` // of the index file
	Obtained   string        `json:"obtained"`   // "built" or "loaded"
	Fetched    int64         `json:"fetched"`    // bytes that came for that now
	// Index says which index it is, and what vouches for it.
	Index image.IndexUse `json:"index"`

	hasTarSize bool
}

func newIndexRow(l *image.Layer) indexRow {
	x := l.CurrentIndex()
	row := indexRow{
		Digest: l.Digest(), DiffID: l.DiffID, Codec: x.Codec().String(), Size: l.Size(),
		Entries: x.NumEntries(), Spans: x.NumSpans(), IndexBytes: x.EncodedSize(), Obtained: "loaded", Fetched: l.Indexed(), Index: l.Use(),
	}
	if x.Space() == layerindex.SpaceTar {
		row.TarSize, row.hasTarSize = x.Size(), true
	}
	if l.Built {
		row.Obtained = "built"
	}
	return row
}

func index(ctx context.Context, e *env, name string, fetch, merged, asJSON bool) error {
	begun := time.Now()
	cache, err := e.openCache()
	if err != nil {
		return err
	}
	defer cache.Close()
	layers, err := e.layers(ctx, name, cache)
	if err != nil {
		return err
	}
	closing := layers.Close
	defer func() { closing() }()
	defer e.reportTraffic(cache)
	if fetch {
		if err := e.fetch(ctx, layers, begun); err != nil {
			return err
		}
	}
	rows := make([]indexRow, len(layers.All()))
	for i, l := range layers.All() {
		rows[i] = newIndexRow(l)
	}
	if merged {
		closing = func() error { return nil }
		img, err := layers.Merge(ctx)
		if err != nil {
			return err
		}
		closing = img.Close
	}
	if asJSON {
		return show.JSON(e.Stdout, rows)
	}
	return e.printIndex(rows)
}

// printIndex prints rows for people.
func (e *env) printIndex(rows []indexRow) error {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "LAYER", Least: 16}, show.Column{Title: "SIZE"}, show.Column{Title: "TAR", Drop: 4},
		show.Column{Title: "ENTRIES", Drop: 3}, show.Column{Title: "SPANS", Drop: 1}, show.Column{Title: "INDEX", Drop: 2}, show.Column{Title: "OBTAINED", Drop: 5}, show.Column{Title: "BY", Drop: 6})
	for _, r := range rows {
		tar := "-" // a table of contents says nothing of it
		if r.hasTarSize {
			tar = e.size(r.TarSize)
		}
		t.Row(printable.Cell(r.Digest.String()), e.size(r.Size), tar, fmt.Sprint(r.Entries), fmt.Sprint(r.Spans),
			e.size(r.IndexBytes), printable.Cell(r.Obtained), indexText(r.Index))
	}
	return t.Print(e.Stdout)
}
