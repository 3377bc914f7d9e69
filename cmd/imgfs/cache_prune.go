package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/spf13/pflag"
)

// A pruner is imgfs cache prune.
type pruner struct {
	all       bool
	olderThan cli.Age
	to        cli.Size
	json      bool
}

func cachePruneCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "prune",
		Usage: "[--json | --bytes] --all | [--older-than D] [--to SIZE]",
		Entry: cli.Entry{Usage: "", Text: "remove what was not used for long, or all"},
		About: `Removes from the cache, and says how much. Mounts that use what is removed go on
and fetch it again. Without a flag that says what, nothing is removed.`,
		Example:    "imgfs cache prune --older-than 30d",
		OtherFlags: map[string]string{"-a": "--all", "-f": "leave it out: nothing is asked", "--force": "leave it out: nothing is asked", "--filter": "--older-than D", "--until": "--older-than D", "--keep-storage": "--to {SIZE}", "--max-used-space": "--to {SIZE}"},
		Setup: func(f *pflag.FlagSet) cli.Action {
			p := pruner{}
			f.BoolVar(&p.all, "all", false, "everything that no running process needs")
			f.Var(&p.olderThan, "older-than", "`D` what was not used for so long: 36h, 7d, 2w, ...")
			f.Var(&p.to, "to", "`SIZE` what was used longest ago, until SIZE is left on disk")
			f.BoolVar(&p.json, "json", false, "before, after and freed (bytes on disk), blobs, indexes\nand contents (of files kept whole) removed")
			e.bytesFlag(f)
			return func(ctx context.Context, args []string) error {
				some := p.olderThan.Duration > 0 || p.to.Given
				switch {
				case len(args) > 0:
					return cli.Usagef("cache prune: %q is not a flag", args[0])
				case p.all && some:
					return cli.Usagef("cache prune: --all leaves nothing for --older-than and --to")
				case !p.all && !some:
					return cli.Usagef("cache prune: say what to remove: --all, --older-than D or --to SIZE")
				}
				return p.run(ctx, e)
			}
		},
	}
}

// A pruneResult is what imgfs cache prune prints. Sizes are bytes on disk.
type pruneResult struct {
	Before  int64 `json:"before"`
	After   int64 `json:"after"`
	Freed   int64 `json:"freed"`
	Blobs   int   `json:"blobs"`   // removed to the last byte
	Indexes int   `json:"indexes"` // removed
	// Contents is the number of kept files that were removed.
	Contents int `json:"contents"`
	// Held is the number of indexes that stay because mounts need them.
	Held int `json:"held"`
	// Foreign are things that imgfs did not make or cannot get at: they stay.
	Foreign []foreignThing `json:"foreign"`
}

func (p *pruner) run(ctx context.Context, e *env) error {
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	opts := cache.PruneOptions{All: p.all, OlderThan: p.olderThan.Duration, To: -1}
	if p.to.Given {
		opts.To = p.to.Bytes
	}
	images, err := disk.Meta.Images()
	if err != nil {
		return err
	}
	done, err := disk.Prune(opts)
	if err != nil {
		return err
	}
	if noteMounted(ctx, disk, images) {
		if done.After, err = disk.Usage(); err != nil {
			return err
		}
	}
	others, err := disk.Others()
	if err != nil {
		return err
	}
	// Other processes may write meanwhile.
	r := pruneResult{done.Before, done.After, max(0, done.Before-done.After), done.Blobs, done.Indexes, done.Contents, done.Held,
		foreignThings(others)}
	if p.json {
		return show.JSON(e.Stdout, r)
	}
	return e.printPruned(r)
}

// printPruned prints for people how much was removed.
func (e *env) printPruned(r pruneResult) error {
	if err := e.printLine("freed %s: %s, %s and %s removed, %s left",
		e.size(r.Freed), show.Count(r.Blobs, "layer"), show.Count(r.Contents, "whole file"), show.Count(r.Indexes, "index"), e.size(r.After)); err != nil {
		return err
	}
	if r.Held > 0 {
		if err := e.printLine("%s kept for what is mounted", show.Count(r.Held, "index")); err != nil {
			return err
		}
	}
	return e.printForeign(r.Foreign)
}

// noteMounted writes the notes of mounted images again, if there are any: these
// images go on using the cache, and imgfs cache ls must list them. It reports
// whether it wrote one.
func noteMounted(ctx context.Context, disk *cache.Cache, images []meta.Image) bool {
	noted, mounts := false, serve.MountsOf(ctx, disk.Dir())
	for _, img := range images {
		if len(mounts.Dirs(img)) > 0 {
			disk.Meta.NoteImage(img)
			noted = true
		}
	}
	return noted
}
