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
		Example: "imgfs stats /mnt/fedora",
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
	w := show.NewTable(e.Stdout)
	n := s.Total
	fmt.Fprintf(w, "%s on %s\n", printable.Name(s.Image), printable.Name(s.Dir))
	fmt.Fprintf(w, "%s, %s, since %s, served by process %d%s\n",
		printable.Name(s.Manifest.String()), printable.Name(s.Platform), s.Since.Local().Format(time.DateTime), s.PID, how(&s))
	for _, h := range s.Servers {
		if h.Down {
			fmt.Fprintf(w, "registry %s: down since %s (%s)\n", printable.Name(h.Host), h.Since.Local().Format(time.DateTime), printable.Line(h.Reason))
		}
	}
	if s.Line.Rate > 0 {
		fmt.Fprintf(w, "registry: answers after %s, then brings %s a second\n", show.Seconds(s.Line.Trip), show.Bytes(int64(min(s.Line.Rate, math.MaxInt64/2))))
	}
	fmt.Fprintf(w, "\nasked\t%s\tin %s, %d failed\n", show.Bytes(n.Asked), show.Count(int(n.Reads), "read"), n.Errors)
	fmt.Fprintf(w, "fetched\t%s\tin %s\n", show.Bytes(n.Fetched), show.Count(int(n.Requests), "request"))
	fmt.Fprintf(w, "wasted\t%s\tfetched and not read yet, or of no use\n", show.Bytes(n.Wasted))
	fmt.Fprintf(w, "hits\t%s\tof layers came from the cache\n", show.Bytes(n.Hits))
	fmt.Fprintf(w, "indexed\t%s\tof new layers came to index them, besides %s of manifests\n", show.Bytes(n.Indexed), show.Bytes(n.Meta))
	fmt.Fprintf(w, "waits\t%d\thalf up to %s, all but 1 %% up to %s\n", n.Waits, show.Seconds(n.WaitP50), show.Seconds(n.WaitP99))
	fmt.Fprintf(w, "kept\t%s\tin %s that were read often; %s read from such\n",
		show.Bytes(s.Contents.KeptBytes), show.Count(int(s.Contents.Kept), "file"), show.Bytes(s.Contents.ReadBytes))
	if s.Temporary > 0 {
		fmt.Fprintf(w, "temporary\t%s\tin files without a name, which count in the cache's size\n", show.Bytes(s.Temporary))
	}
	if n.Bad > 0 {
		fmt.Fprintf(w, "wrong\t%d\tchunks were not what they should be, and not used\n", n.Bad)
	}
	fmt.Fprintln(w, "\nFAST PATH\tUSED")
	for _, p := range s.FastPaths {
		fmt.Fprintf(w, "%s\t%s\n", printable.Cell(p.Name), usedText(p))
	}
	fmt.Fprintln(w, "\nLAYER\tSIZE\tCACHED\tASKED\tFETCHED\tWASTED\tREQUESTS\tHITS\tERRORS\tWAITS\tP50\tP99\tVERIFIED")
	for _, l := range s.Layers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\t%s\n", show.ShortDigest(l.Digest), show.Bytes(l.Size), show.Bytes(l.Cached), show.Bytes(l.Asked),
			show.Bytes(l.Fetched), show.Bytes(l.Wasted), l.Requests, show.Bytes(l.Hits), l.Errors,
			l.Waits, show.Seconds(l.WaitP50), show.Seconds(l.WaitP99), verifiedText(l.Verified))
	}
	if len(s.Files) > 0 {
		fmt.Fprintln(w, "\nFETCHED\tASKED\tFILE")
	}
	for _, f := range s.Files {
		fmt.Fprintf(w, "%s\t%s\t%s\n", show.Bytes(f.Fetched), show.Bytes(f.Asked), printable.Name(f.Path))
	}
	return w.Flush()
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
