package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

func cacheLsCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "ls",
		Usage: "[--json | --bytes]",
		Entry: cli.Entry{Usage: "", Text: "list the images of which something is kept"},
		About: `Lists the images that were used with this cache directory, the one used last
first: name, digest of the manifest, layers, bytes of their indexes, bytes of
the layers that are kept and what share of the image that is, when it was used
last, how its layers were verified (see imgfs help stats), with numbers if not
all in the same way, and where it is mounted.

A layer that several images have counts for each of them. The last line says
what the directory takes on disk, and what it may take (--cache-size); and how
much of that are files that are kept whole, for the kernel to read by itself.`,
		Example: "imgfs cache ls",
		Setup: func(f *pflag.FlagSet) cli.Action {
			asJSON := f.Bool("json", false, "an object with the details of each layer: docs/json.md")
			e.bytesFlag(f)
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("cache ls: %q is not a flag", args[0])
				}
				return cacheLs(ctx, e, *asJSON)
			}
		},
	}
}

// A cacheList is what imgfs cache ls --json prints. Sizes are in bytes.
type cacheList struct {
	Dir      string         `json:"dir"`
	DirBytes show.NameBytes `json:"dirBytes,omitempty"` // see show.Marshal
	Usage    int64          `json:"usage"`              // of all that is in it, on disk
	Budget   int64          `json:"budget"`             // what it may take; 0: no limit
	// Temporary are bytes of nameless files of running processes. Usage does not
	// have them.
	Temporary int64 `json:"temporary"`
	// Contents is the number of kept files, and ContentBytes their part of Usage.
	Contents     int           `json:"contents"`
	ContentBytes int64         `json:"contentBytes"`
	Images       []cachedImage `json:"images"` // the one used last first
	// Other are the blobs that no image in the list has.
	Other []cachedLayer `json:"other"`
	// Foreign are things in the directory that imgfs did not make or cannot use.
	// They are never removed.
	Foreign []foreignThing `json:"foreign"`
}

// A cachedImage is an image that the cache knows.
type cachedImage struct {
	Name        string           `json:"name"`
	NameBytes   show.NameBytes   `json:"nameBytes,omitempty"`
	Manifest    digest.Digest    `json:"manifest"`
	Platform    string           `json:"platform"`
	Used        time.Time        `json:"used"`
	Mounts      []string         `json:"mounts"` // directories, now
	MountsBytes []show.NameBytes `json:"mountsBytes,omitempty"`
	Size        int64            `json:"size"`   // of the layers, compressed
	Cached      int64            `json:"cached"` // of that on disk
	Index       int64            `json:"index"`  // of the index files
	Verified    string           `json:"verified"`
	Layers      []cachedLayer    `json:"layers"` // the base first
}

// A cachedLayer is a layer, or a blob of an image that is not known.
type cachedLayer struct {
	Digest   digest.Digest `json:"digest"`
	DiffID   digest.Digest `json:"diffID,omitempty"`
	Size     int64         `json:"size"`   // compressed; 0 if that is not known
	Cached   int64         `json:"cached"` // of that on disk
	Index    int64         `json:"index"`  // of the index file
	Used     time.Time     `json:"used,omitzero"`
	Verified string        `json:"verified"` // as cache.Verification has it
}

func newCachedLayer(h blobs.Holding) cachedLayer {
	return cachedLayer{Digest: h.Digest, Size: h.Size, Cached: h.Cached, Index: h.Index, Used: h.Used, Verified: h.Verified.String()}
}

func cacheLs(ctx context.Context, e *env, asJSON bool) error {
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	list, err := e.listCache(ctx, disk)
	switch {
	case err != nil:
		return err
	case asJSON:
		return show.JSON(e.Stdout, list)
	}
	return e.printCache(list)
}

// listCache returns what is in a cache directory.
func (e *env) listCache(ctx context.Context, disk *cache.Cache) (*cacheList, error) {
	list := &cacheList{Dir: disk.Dir(), Budget: disk.Budget(), Images: []cachedImage{}, Other: []cachedLayer{}, Foreign: []foreignThing{}}
	var err error
	if list.Usage, err = disk.Usage(); err != nil {
		return nil, err
	}
	others, err := disk.Others()
	if err != nil {
		return nil, err
	}
	list.Foreign = foreignThings(others)
	list.Temporary = disk.Temporary()
	holdings, err := disk.Blobs.Holdings()
	if err != nil {
		return nil, err
	}
	contents, err := disk.Files.List()
	if err != nil {
		return nil, err
	}
	for _, x := range contents {
		list.Contents++
		list.ContentBytes += x.Disk
	}
	images, err := disk.Meta.Images()
	if err != nil {
		return nil, err
	}
	held := make(map[digest.Digest]blobs.Holding)
	for _, h := range holdings {
		held[h.Digest] = h
	}
	listed := make(map[digest.Digest]bool)
	mounts := serve.MountsOf(ctx, disk.Dir())
	for _, img := range images {
		row := newCachedImage(img, held)
		row.Mounts = mounts.Dirs(img)
		list.Images = append(list.Images, row)
		for _, l := range img.Layers {
			listed[l.Digest] = true
		}
	}
	for _, h := range holdings {
		if !listed[h.Digest] {
			list.Other = append(list.Other, newCachedLayer(h))
		}
	}
	slices.SortFunc(list.Other, func(a, b cachedLayer) int { return cmp.Compare(a.Digest, b.Digest) })
	return list, nil
}

// newCachedImage adds up the cached bytes of an image. A layer that it has twice
// counts once.
func newCachedImage(img meta.Image, held map[digest.Digest]blobs.Holding) cachedImage {
	row := cachedImage{Name: img.Name, Manifest: img.Manifest, Platform: img.Platform, Used: img.Used, Mounts: []string{}, Layers: []cachedLayer{}}
	least := meta.VerifiedWhole
	seen := make(map[digest.Digest]bool)
	for _, l := range img.Layers {
		h := held[l.Digest]
		h.Digest, h.Size = l.Digest, l.Size
		layer := newCachedLayer(h)
		layer.DiffID = l.DiffID
		row.Layers = append(row.Layers, layer)
		least = min(least, h.Verified)
		if !seen[l.Digest] {
			seen[l.Digest] = true
			row.Size += h.Size
			row.Cached += min(h.Cached, h.Size) // several files may have the same
			row.Index += h.Index
		}
	}
	row.Verified = least.String()
	return row
}

// printCache prints a list for people.
func (e *env) printCache(list *cacheList) error {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "IMAGE", Least: 20}, show.Column{Title: "MANIFEST", Drop: 1}, show.Column{Title: "LAYERS", Drop: 4},
		show.Column{Title: "INDEX", Drop: 2}, show.Column{Title: "CACHED", Drop: 6}, show.Column{Title: "SHARE", Drop: 7}, show.Column{Title: "USED", Drop: 5},
		show.Column{Title: "VERIFIED", Drop: 3}, show.Column{Title: "MOUNTED ON", Least: 12, Drop: 8})
	for _, r := range list.Images {
		used := r.Used.Local().Format("2006-01-02 15:04")
		on := "-"
		if len(r.Mounts) > 0 {
			used, on = "now", mountsText(r.Mounts)
		}
		t.Row(printable.Cell(r.Name), show.ShortDigest(r.Manifest), fmt.Sprint(len(r.Layers)), e.size(r.Index),
			e.size(r.Cached), show.Share(r.Cached, r.Size), used, verifiedLayers(r.Layers), on)
	}
	if err := t.Print(e.Stdout); err != nil {
		return err
	}
	limit := "without a limit"
	if list.Budget > 0 {
		limit = "of at most " + e.size(list.Budget)
	}
	other := ""
	if list.Contents > 0 {
		other = fmt.Sprintf("; %s of it in %s", e.size(list.ContentBytes), show.Count(list.Contents, "whole file"))
	}
	if list.Temporary > 0 {
		other += fmt.Sprintf("; besides, %s in temporary files of running processes", e.size(list.Temporary))
	}
	if n := len(list.Other); n > 0 {
		sum := int64(0)
		for _, l := range list.Other {
			sum += l.Cached + l.Index
		}
		other += fmt.Sprintf("; %s of %s belong to no image above", e.size(sum), show.Count(n, "layer"))
	}
	err := e.printLine("%s: %s on disk, %s%s", printable.Name(list.Dir), e.size(list.Usage), limit, other)
	return errors.Join(err, e.printForeign(list.Foreign))
}

// mountsText writes a list of directories.
func mountsText(dirs []string) string {
	names := make([]string, len(dirs))
	for i, d := range dirs {
		names[i] = printable.Name(d)
	}
	return strings.Join(names, ", ")
}

// verifiedLayers returns how the layers of an image were checked: one word if all
// were checked in the same way, else a number for each way, the weakest first.
func verifiedLayers(layers []cachedLayer) string {
	counts := make(map[string]int)
	for _, l := range layers {
		counts[l.Verified]++
	}
	var parts []string
	for v := meta.VerifiedWrong; v <= meta.VerifiedWhole; v++ {
		switch n := counts[v.String()]; n {
		case 0:
		case len(layers):
			return verifiedText(v.String())
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, verifiedText(v.String())))
		}
	}
	return strings.Join(parts, ", ")
}
