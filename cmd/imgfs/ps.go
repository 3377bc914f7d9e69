package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func psCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "ps",
		Usage: "[-a] [--json]",
		Entry: cli.Entry{Text: "list what is mounted where, and how it is"},
		About: `Lists the images that this user has mounted, root those of all users: the digest
of the manifest, since when, the process that serves the mount and its memory,
what came over the network, and the mount's health: ok, prefetching, registry
down (as of the last request), waiting (for the image: mount --no-wait), stopped
(a process is), restarting, no answer (within two seconds), dead (no process
serves it; imgfs umount), hidden (another mount is over it), unknown (only who
has mounted it may ask). A bind mount is no row of its own. Mounts of imgfs
snapshotter have the chain and the containers that use it, running or not, those
of imgfs podman the image's names. With -q only directories.`,
		Example:    "imgfs ps",
		OtherFlags: map[string]string{"--no-trunc": "--json", "--format": "--json, and jq", "-l": "leave it out", "-w": "--json"},
		Setup: func(f *pflag.FlagSet) cli.Action {
			all := f.BoolP("all", "a", false, "those of other users too, as far as they can be seen")
			asJSON := f.Bool("json", false, "an array of objects; docs/json.md names their members")
			e.bytesFlag(f)
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return cli.WithHint(cli.Usagef("ps: %s: it takes no argument", printable.Name(args[0])), "imgfs stats "+printable.Word(args[0]))
				}
				everybody := *all || os.Geteuid() == 0 && !f.Changed("all")
				want := func(m fusefs.MountPoint) bool { return everybody || m.Own() }
				if e.Quiet && !*asJSON {
					return e.printDirs(want)
				}
				serve.SweepLeft(ctx)
				rows, err := serve.Mounted(ctx, want)
				if err != nil {
					return err
				}
				addEngines(ctx, rows)
				if *asJSON {
					return show.JSON(e.Stdout, rows)
				}
				return e.printMounts(rows)
			}
		},
	}
}

// printDirs prints where images are mounted, and asks none of the mounts: into a pipe byte
// for byte.
func (e *env) printDirs(want func(fusefs.MountPoint) bool) error {
	dirs, err := serve.MountedOn(want)
	if err != nil {
		return err
	}
	_, terminal := cli.Terminal(e.Raw)
	for _, dir := range dirs {
		if terminal {
			dir = printable.Name(dir)
		}
		if _, err := io.WriteString(e.Raw, dir+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// printMounts prints mounts for people.
func (e *env) printMounts(rows []serve.Running) error {
	if len(rows) == 0 {
		if _, terminal := cli.Terminal(e.Raw); terminal {
			return e.printLine("nothing is mounted")
		}
		return nil
	}
	columns := []show.Column{{Title: "IMAGE", Least: 12}, {Title: "DIGEST", Drop: 2}, {Title: "DIR", Least: 10},
		{Title: "SINCE", Drop: 4}, {Title: "PID"}, {Title: "MEMORY", Drop: 5}, {Title: "FETCHED", Drop: 3}}
	foreign, engines := false, false
	for _, r := range rows {
		foreign, engines = foreign || !r.Own, engines || r.Engine.Kind != ""
	}
	if engines {
		columns = append(columns, show.Column{Title: "USED BY", Least: 18, CutEnd: true})
	}
	columns = append(columns, show.Column{Title: "HEALTH", Wrap: true})
	if foreign {
		columns = append(columns, show.Column{Title: "USER", Drop: 1})
	}
	width, digits := e.tableWidth(), 12
	if width > 0 && width < 100 {
		digits = 7 // leave room for names
	}
	t := show.NewTable(width, columns...)
	for _, r := range rows {
		cells := []string{printable.Cell(imageText(&r)), "-", printable.Cell(r.Dir), "-", "-", "-", "-"}
		if r.Manifest != "" {
			cells[1], cells[6] = printable.Cut(show.ShortDigest(r.Manifest), digits), e.size(r.Fetched)
		}
		if !r.Since.IsZero() {
			cells[3] = sinceText(r.Since, time.Now())
		}
		if r.PID > 0 {
			cells[4] = fmt.Sprint(r.PID)
		}
		if r.Memory > 0 {
			cells[5] = e.size(r.Memory)
		}
		if engines {
			cells = append(cells, printable.Cell(engineText(&r.Engine)))
		}
		cells = append(cells, healthText(&r))
		if foreign {
			cells = append(cells, printable.Cell(strings.TrimPrefix(r.Owner, "user ")))
		}
		t.Row(cells...)
	}
	return t.Print(e.Stdout)
}

// healthText writes the health of a mount for people.
func healthText(r *serve.Running) string {
	if p := r.Prefetch; p != nil && r.Health == serve.HealthOK {
		switch p.State {
		case "running":
			return "prefetching " + show.Share(p.Have, p.All)
		case "failed":
			return "prefetch failed"
		}
	}
	if r.Why != "" {
		return printable.Cell(r.Health + ": " + r.Why)
	}
	return printable.Cell(r.Health)
}

// sinceText writes when something began as ps(1) does: the time of today, else the day,
// else the year.
func sinceText(since, now time.Time) string {
	since, now = since.Local(), now.Local()
	switch {
	case since.Year() != now.Year():
		return since.Format("2006")
	case since.YearDay() != now.YearDay():
		return since.Format("Jan02")
	}
	return since.Format("15:04")
}
