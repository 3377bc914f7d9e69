package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// statsLimit is how long a mount may take to answer.
const statsLimit = 5 * time.Second

func statsCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "stats",
		Usage: "[FLAGS] DIR | IMAGE",
		Entry: cli.Entry{Usage: "DIR", Text: "print what a mount has read, fetched and waited for"},
		About: `Prints what a running mount has done since it was mounted: bytes fetched for
readers (wasted: not read yet, or of no use) and to index layers, bytes that
were in the cache, reads that failed or had to wait, and whether a registry is
down, as of its last request. DIR is the mountpoint or anything below it; an
IMAGE is mounted once. Layers are verified "whole" (the digest of all of it was
checked), "by chunk" (each piece, by an index made from the whole layer
elsewhere) or "publisher only" (by an index that only its publisher vouches
for).`,
		Notes:   "The object is also in the extended attribute user.imgfs.stats of the mountpoint.",
		Example: "imgfs stats ~/fedora",
		Setup: func(f *pflag.FlagSet) cli.Action {
			asJSON := f.Bool("json", false, "the same as an object; docs/json.md names its members")
			e.bytesFlag(f)
			var want statsTables
			f.BoolVar(&want.layers, "layers", false, "each layer too: what came of it, how it was verified")
			f.BoolVar(&want.files, "files", false, "the files that cost most too")
			f.BoolVar(&want.paths, "paths", false, "what makes the mount fast too, or why not")
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("stats: one directory is needed, or an image that is mounted")
				}
				ctx, cancel := context.WithTimeout(ctx, statsLimit)
				defer cancel()
				var s serve.Stats
				err := e.onMount(ctx, "stats", args[0], func(dir string) (err error) {
					s, err = serve.StatsOf(ctx, dir)
					return err
				})
				switch {
				case err != nil:
					return err
				case *asJSON:
					return show.JSON(e.Stdout, s)
				}
				return e.printStats(s, want)
			}
		},
	}
}

// statsTables are the tables that imgfs stats prints besides.
type statsTables struct{ layers, files, paths bool }

// printStats prints stats for people: lines for what everybody wants to know, and the
// tables that were asked for.
func (e *env) printStats(s serve.Stats, want statsTables) error {
	if s.Opening {
		return e.printLine("%s on %s is not open yet: who looks there waits, since %s; process %d", printable.Name(s.Image), printable.Name(s.Dir), s.Since.Local().Format(time.DateTime), s.PID)
	}
	if err := e.printSummary(&s); err != nil {
		return err
	}
	var tables []*show.Table
	if want.paths {
		tables = append(tables, e.pathTable(&s))
	}
	if want.layers {
		tables = append(tables, e.layerTable(&s))
	}
	if want.files {
		tables = append(tables, e.fileTable(&s))
	}
	for _, t := range tables {
		if err := e.Print("\n"); err != nil {
			return err
		}
		if err := t.Print(e.Stdout); err != nil {
			return err
		}
	}
	return nil
}

// printSummary prints eleven lines, each cut to fit.
func (e *env) printSummary(s *serve.Stats) error {
	n := s.Total
	t := show.NewTable(e.tableWidth(), show.Column{}, show.Column{Least: 20, CutEnd: true})
	width := max(0, e.tableWidth()-9)
	name := func(name string) string {
		if text := printable.Name(name); width > 0 {
			return show.Shorten(text, width) // both ends of it tell
		}
		return printable.Name(name)
	}
	t.Row("image", name(s.Image))
	t.Row("digest", printable.Name(s.Manifest.String())+layersText(s))
	t.Row("dir", name(s.Dir))
	t.Row("since", fmt.Sprintf("%s, process %d, %s%s", s.Since.Local().Format(time.DateTime), s.PID, printable.Name(s.Platform), how(s)))
	t.Row("recovery", recoveryText(&s.Recovery))
	t.Row("fetched", fmt.Sprintf("%s for readers in %s; %s to index, %s of manifests", e.size(n.Fetched), show.Count(int(n.Requests), "request"), e.size(n.Indexed), e.size(n.Meta)))
	wasted := e.size(n.Wasted) + " of it was not read yet, or of no use"
	if p := s.Profile; p.Fetched > 0 {
		wasted += fmt.Sprintf("; %s came since they are read first, %s of that was read", e.size(p.Fetched), e.size(p.Used))
	}
	t.Row("wasted", wasted)
	t.Row("hits", e.hits(s))
	t.Row("reads", fmt.Sprintf("%s of %s in all, %d failed", show.Count(int(n.Reads), "read"), e.size(n.Asked), n.Errors))
	waits := "no read had to wait"
	if n.Waits > 0 {
		waits = fmt.Sprintf("%s waited, half up to %s, all but 1 %% up to %s", show.Count(int(n.Waits), "read"), show.Seconds(n.WaitP50), show.Seconds(n.WaitP99))
	}
	t.Row("waits", waits)
	t.Row("servers", e.servers(s))
	return t.Print(e.Stdout)
}

// layersText says how many layers are mounted, if they are not all, with a comma before it.
func layersText(s *serve.Stats) string {
	if s.OfLayers == 0 {
		return ""
	}
	return fmt.Sprintf(", the lowest %d of %d layers", len(s.Layers)+s.OmittedLayers, s.OfLayers)
}

// recoveryText says what becomes of a mount when the process dies that serves it.
func recoveryText(r *serve.RecoveryState) string {
	text := "another process takes over if this one dies"
	switch {
	case r.State != "on":
		return "off: " + printable.Line(r.Why)
	case r.Holder == 0 && r.Unit == "":
		text = "no process would take over at this moment; the next one is being started"
	case r.HolderStopped:
		text = fmt.Sprintf("process %d, which would take over, is stopped; kill -CONT %d lets it go on", r.Holder, r.Holder)
	case r.Restarts > 0:
		text = fmt.Sprintf("%s, the last on %s: %s", show.Count(r.Restarts, "restart"), r.LastRestart.Local().Format(time.DateTime), printable.Line(r.LastWhy))
	}
	if n := len(r.Refused); n > 0 {
		text += fmt.Sprintf("; %s with EIO, of which servers have died: %s", show.Count(n, "file"), printable.Name(r.Refused[0]))
	}
	return text
}

// hits says what did not have to be fetched.
func (e *env) hits(s *serve.Stats) string {
	text := e.size(s.Total.Hits) + " of layers came from the cache"
	if k := s.Contents; k.Kept > 0 {
		text += fmt.Sprintf(", and %s from %s kept whole", e.size(k.ReadBytes), show.Count(int(k.Kept), "file"))
	}
	if s.Temporary > 0 {
		text += fmt.Sprintf("; %s in temporary files", e.size(s.Temporary))
	}
	if n := s.Total.Bad; n > 0 {
		text += fmt.Sprintf("; %s wrong", show.Count(int(n), "chunk"))
	}
	return text
}

// servers says whether those that the image is read from answer.
func (e *env) servers(s *serve.Stats) string {
	down := 0
	for _, h := range s.Servers {
		if h.Down {
			down++
		}
	}
	switch {
	case down > 0: // these come first
		h := s.Servers[0]
		text := fmt.Sprintf("%s down since %s: %s", printable.Name(h.Host), h.Since.Local().Format(time.TimeOnly), printable.Line(h.Reason))
		if down > 1 {
			text = fmt.Sprintf("%d of %d down: ", down, len(s.Servers)) + text
		}
		return text
	case len(s.Servers) == 0:
		return "none was asked"
	}
	text := show.Count(len(s.Servers), "server") + ", none down"
	if s.Line.Rate > 0 {
		text += fmt.Sprintf("; an answer after %s, then %s a second", show.Seconds(s.Line.Trip), e.size(int64(min(s.Line.Rate, math.MaxInt64/2))))
	}
	return text
}

// pathTable has what makes the mount fast.
func (e *env) pathTable(s *serve.Stats) *show.Table {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "FAST PATH", Least: 9}, show.Column{Title: "USED", Wrap: true})
	for _, p := range s.FastPaths {
		t.Row(printable.Cell(p.Name), usedText(p))
	}
	return t
}

// layerTable has the counters of each layer.
func (e *env) layerTable(s *serve.Stats) *show.Table {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "LAYER", Least: 12}, show.Column{Title: "SIZE", Drop: 11}, show.Column{Title: "CACHED", Drop: 10}, show.Column{Title: "ASKED", Drop: 5},
		show.Column{Title: "FETCHED", Drop: 12}, show.Column{Title: "WASTED", Drop: 3}, show.Column{Title: "REQUESTS", Drop: 4}, show.Column{Title: "HITS", Drop: 8},
		show.Column{Title: "ERRORS", Drop: 9}, show.Column{Title: "WAITS", Drop: 2}, show.Column{Title: "P50", Drop: 1}, show.Column{Title: "P99", Drop: 6},
		show.Column{Title: "VERIFIED", Least: 8, Drop: 7}, show.Column{Title: "INDEX", Least: 8, Drop: 13})
	for _, l := range s.Layers {
		t.Row(show.ShortDigest(l.Digest), e.size(l.Size), e.size(l.Cached), e.size(l.Asked), e.size(l.Fetched), e.size(l.Wasted),
			fmt.Sprint(l.Requests), e.size(l.Hits), fmt.Sprint(l.Errors), fmt.Sprint(l.Waits), show.Seconds(l.WaitP50), show.Seconds(l.WaitP99), verifiedText(l.Verified), indexText(l.Index))
	}
	return t
}

// fileTable has the files that cost most.
func (e *env) fileTable(s *serve.Stats) *show.Table {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "FETCHED"}, show.Column{Title: "ASKED", Drop: 1}, show.Column{Title: "FILE", Least: 12})
	for _, f := range s.Files {
		t.Row(e.size(f.Fetched), e.size(f.Asked), printable.Name(f.Path))
	}
	return t
}

// how returns what is special about a mount, with a comma before it.
func how(s *serve.Stats) string {
	switch p := s.Prefetch; {
	case s.Offline:
		return ", offline"
	case p.State == "running":
		return ", prefetching " + show.Share(p.Have, p.All)
	case p.State != "off":
		return ", prefetch " + printable.Name(p.State)
	}
	return ""
}

// usedText writes for people whether a fast path is used, or why not.
func usedText(p fusefs.FastPath) string {
	if p.Active {
		return "yes"
	}
	return "no: " + printable.Line(p.Why)
}

// indexText writes for people which index a layer is read by, and what vouches for it.
func indexText(u image.IndexUse) string {
	if u.Vouched == image.VouchedHere {
		return printable.Cell(u.Origin)
	}
	return printable.Cell(u.Origin + ", by " + string(u.Vouched))
}

// verifiedText writes for people how a layer was checked.
func verifiedText(v string) string {
	switch v {
	case meta.VerifiedByChunk.String():
		return "by chunk"
	case meta.VerifiedByPublisher.String():
		return "publisher only"
	case meta.VerifiedNot.String():
		return "not yet"
	}
	return printable.Cell(v)
}
