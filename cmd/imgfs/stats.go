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
		Usage: "[--json] DIR | IMAGE",
		Entry: cli.Entry{Usage: "DIR", Text: "print what a mount has read, fetched and waited for"},
		About: `Prints what a running mount has done since it was mounted: bytes that readers
asked for, bytes that came from the registry for that (wasted: not read yet, or of
no use), or to index new layers, whether kept or not, requests, bytes that were in
the cache, failed reads, how long reads waited, bytes in temporary files now, how
each layer was verified, and the files that cost most; whether a registry is down,
as of its last request; and what makes the mount fast, or why it is not used. DIR
is the mountpoint or anything below it; an IMAGE is found if it is mounted once.

Verified are layers "whole" (the digest of all of it was checked), "by chunk"
(each piece by an index made from the whole layer elsewhere) or "publisher only"
(each piece by an index that only its publisher vouches for).`,
		Notes:   "The object is also in the extended attribute user.imgfs.stats of the mountpoint.",
		Example: "imgfs stats ~/fedora",
		Setup: func(f *pflag.FlagSet) cli.Action {
			asJSON := f.Bool("json", false, "the same as an object; docs/json.md names its members")
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
				return e.printStats(s)
			}
		},
	}
}

// printStats prints stats for people.
func (e *env) printStats(s serve.Stats) error {
	err := e.printLine("%s on %s", printable.Name(s.Image), printable.Name(s.Dir))
	also := func(do func() error) {
		if err == nil {
			err = do()
		}
	}
	also(func() error {
		return e.printLine("%s, %s, since %s, served by process %d%s",
			printable.Name(s.Manifest.String()), printable.Name(s.Platform), s.Since.Local().Format(time.DateTime), s.PID, how(&s))
	})
	for _, h := range s.Servers {
		if h.Down {
			also(func() error {
				return e.printLine("registry %s: down since %s (%s)", printable.Name(h.Host), h.Since.Local().Format(time.DateTime), printable.Line(h.Reason))
			})
		}
	}
	if s.Line.Rate > 0 {
		also(func() error {
			return e.printLine("registry: answers after %s, then brings %s a second", show.Seconds(s.Line.Trip), show.Bytes(int64(min(s.Line.Rate, math.MaxInt64/2))))
		})
	}
	for _, t := range []*show.Table{e.totalTable(&s), e.pathTable(&s), e.layerTable(&s), e.fileTable(&s)} {
		if t != nil {
			also(func() error { return e.Print("\n") })
			also(func() error { return t.Print(e.Stdout) })
		}
	}
	return err
}

// totalTable has the counters of all layers.
func (e *env) totalTable(s *serve.Stats) *show.Table {
	n := s.Total
	t := show.NewTable(e.width(), show.Column{}, show.Column{}, show.Column{Wrap: true})
	t.Row("asked", show.Bytes(n.Asked), fmt.Sprintf("in %s, %d failed", show.Count(int(n.Reads), "read"), n.Errors))
	t.Row("fetched", show.Bytes(n.Fetched), "in "+show.Count(int(n.Requests), "request"))
	t.Row("wasted", show.Bytes(n.Wasted), "fetched and not read yet, or of no use")
	t.Row("hits", show.Bytes(n.Hits), "of layers came from the cache")
	t.Row("indexed", show.Bytes(n.Indexed), fmt.Sprintf("of new layers came to index them, besides %s of manifests", show.Bytes(n.Meta)))
	t.Row("waits", fmt.Sprint(n.Waits), fmt.Sprintf("half up to %s, all but 1 %% up to %s", show.Seconds(n.WaitP50), show.Seconds(n.WaitP99)))
	t.Row("kept", show.Bytes(s.Contents.KeptBytes), fmt.Sprintf("in %s that were read often; %s read from such",
		show.Count(int(s.Contents.Kept), "file"), show.Bytes(s.Contents.ReadBytes)))
	if s.Temporary > 0 {
		t.Row("temporary", show.Bytes(s.Temporary), "in files without a name, which count in the cache's size")
	}
	if n.Bad > 0 {
		t.Row("wrong", fmt.Sprint(n.Bad), "chunks were not what they should be, and not used")
	}
	return t
}

// pathTable has what makes the mount fast.
func (e *env) pathTable(s *serve.Stats) *show.Table {
	t := show.NewTable(e.width(), show.Column{Title: "FAST PATH", Least: 9}, show.Column{Title: "USED", Wrap: true})
	for _, p := range s.FastPaths {
		t.Row(printable.Cell(p.Name), usedText(p))
	}
	return t
}

// layerTable has the counters of each layer.
func (e *env) layerTable(s *serve.Stats) *show.Table {
	t := show.NewTable(e.width(), show.Column{Title: "LAYER", Least: 12}, show.Column{Title: "SIZE", Drop: 11}, show.Column{Title: "CACHED", Drop: 10}, show.Column{Title: "ASKED", Drop: 5},
		show.Column{Title: "FETCHED", Drop: 12}, show.Column{Title: "WASTED", Drop: 3}, show.Column{Title: "REQUESTS", Drop: 4}, show.Column{Title: "HITS", Drop: 8},
		show.Column{Title: "ERRORS", Drop: 9}, show.Column{Title: "WAITS", Drop: 2}, show.Column{Title: "P50", Drop: 1}, show.Column{Title: "P99", Drop: 6},
		show.Column{Title: "VERIFIED", Least: 8, Drop: 7}, show.Column{Title: "INDEX", Least: 8, Drop: 13})
	for _, l := range s.Layers {
		t.Row(show.ShortDigest(l.Digest), show.Bytes(l.Size), show.Bytes(l.Cached), show.Bytes(l.Asked), show.Bytes(l.Fetched), show.Bytes(l.Wasted),
			fmt.Sprint(l.Requests), show.Bytes(l.Hits), fmt.Sprint(l.Errors), fmt.Sprint(l.Waits), show.Seconds(l.WaitP50), show.Seconds(l.WaitP99), verifiedText(l.Verified), indexText(l.Index))
	}
	return t
}

// fileTable has the files that cost most; nil if there are none.
func (e *env) fileTable(s *serve.Stats) *show.Table {
	if len(s.Files) == 0 {
		return nil
	}
	t := show.NewTable(e.width(), show.Column{Title: "FETCHED"}, show.Column{Title: "ASKED", Drop: 1}, show.Column{Title: "FILE", Least: 12})
	for _, f := range s.Files {
		t.Row(show.Bytes(f.Fetched), show.Bytes(f.Asked), printable.Name(f.Path))
	}
	return t
}

// how returns what is special about a mount, with a comma before it.
func how(s *serve.Stats) string {
	text := ""
	if s.Offline {
		text = ", offline"
	}
	if p := s.Prefetch; p.State != "off" {
		text += fmt.Sprintf(", prefetch %s: %s of %s", printable.Name(p.State), show.Bytes(p.Have), show.Bytes(p.All))
	}
	return text
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
