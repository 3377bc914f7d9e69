// Command bench measures imgfs beside its peers, in six groups of sections:
//
//	index  making, storing, loading and reading layer indexes
//	net    what imgfs moves over a slow line, and how long that takes
//	starts how long programs of an image take to start over a slow line
//	fuse   a mounted image beside other file systems
//	tools  the commands that need no mount beside crane, podman and coreutils
//	live   what it costs that a mount outlives its processes, and how long it pauses
//
// It prints one report of those that are named, or of all, and exits 0 also
// when a wanted figure is missed; it does not when something is broken or bytes
// differ.
//
//	go run ./testdata/bench [index] [net] [starts] [fuse] [tools] [live] [flags] [IMGFS]
//
// IMGFS is the program that is measured, bin/imgfs if it is not named. With
// CORPORA set the images are the lab's, which docs/performance.md describes, and
// else made ones. Programs to compare with are looked for on PATH; one that is
// not there is a row that says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/fuse"
	"github.com/imgfs/imgfs/testdata/bench/internal/index"
	"github.com/imgfs/imgfs/testdata/bench/internal/live"
	"github.com/imgfs/imgfs/testdata/bench/internal/network"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/internal/starts"
	"github.com/imgfs/imgfs/testdata/bench/internal/tools"
	"github.com/imgfs/imgfs/testdata/labimage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// groupNames are the groups, in the order of the report.
var groupNames = []string{"index", "net", "starts", "fuse", "tools", "live"}

// A program is the parsed command line.
type program struct {
	runner.Settings
	groups []string
	index  index.Options
	net    network.Options
	starts starts.Options
	fuse   fuse.Options
	trace  string
	json   bool
}

// group returns the group of a name.
func (p *program) group(name string, r *runner.Runner) runner.Group {
	switch name {
	case "index":
		return index.New(r, p.index)
	case "net":
		return network.New(r, p.net)
	case "starts":
		return starts.New(r, p.starts)
	case "fuse":
		return fuse.New(r, p.fuse)
	case "live":
		return live.New(r)
	}
	return tools.New(r)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] { // the groups start these
		case runner.ReadCommand:
			return runner.RunRead(args[1:], stdin, stdout, stderr)
		case index.LoadCommand:
			return index.RunLoad(ctx, args[1:], stdout, stderr)
		}
	}
	p, err := parse(args, stderr)
	if err != nil {
		return 2
	}
	if err := p.report(ctx, stdout); err != nil {
		p.Logf("%v", err)
		return 1
	}
	return 0
}

// parse reads the command line. The error has been printed.
func parse(args []string, stderr io.Writer) (*program, error) {
	p := &program{Settings: runner.Settings{Corpora: os.Getenv("CORPORA"), System: labimage.Ordinary}}
	p.Logf = func(format string, args ...any) { fmt.Fprintf(stderr, "bench: "+format+"\n", args...) }
	for len(args) > 0 && slices.Contains(groupNames, args[0]) {
		p.groups, args = append(p.groups, args[0]), args[1:]
	}
	if p.groups == nil {
		p.groups = groupNames
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: bench [index] [net] [starts] [fuse] [tools] [live] [flags] [IMGFS]")
		flags.PrintDefaults()
	}
	flags.IntVar(&p.Runs, "runs", 0, "how often each thing is measured; of times the median counts, of what is moved by a cold read the most (default 5 for index, 3 for the others)")
	flags.StringVar(&p.Only, "only", "", "one `section`, or section/input of index and section/program,... of starts: "+strings.Join(p.sections(groupNames), ", "))
	flags.BoolVar(&p.json, "json", false, "print JSON instead of Markdown")
	flags.BoolVar(&p.index.Pull, "pull", false, "index, starts: compare with podman pull, and starts with snapshotters of containerd too, which takes minutes")
	flags.BoolVar(&p.starts.All, "lines", false, "starts: measure over all three lines, not only the usual one")
	flags.DurationVar(&p.net.Delay, "rtt", 20*time.Millisecond, "net: round trip that each request takes")
	flags.Float64Var(&p.net.Mbps, "mbps", 100, "net: bandwidth of the line in megabits a second")
	flags.StringVar(&p.trace, "trace", "", "net, starts: `file` that gets a line for each request")
	flags.StringVar(&p.fuse.Work, "work", "", "fuse, starts: `directory` that keeps the images made, for the next run")
	flags.BoolVar(&p.fuse.Loop, "loop", false, "fuse: have an ext4 in a file for all that is read, also where there is one without")
	flags.Func("systems", "fuse: measure only these `NAMES`, with commas between them", func(text string) error {
		p.fuse.Systems = strings.Split(text, ",")
		return nil
	})
	flags.Func("also", "fuse: a column more of imgfs, `'LABEL: WORDS'`: flags of imgfs mount, and NAME=VALUE for its environment", func(text string) error {
		v, err := fuse.ParseVariant(text)
		p.fuse.Also = append(p.fuse.Also, v)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	p.starts.Pull, p.starts.Work = p.index.Pull, p.fuse.Work
	if p.Imgfs = "bin/imgfs"; flags.NArg() > 0 {
		p.Imgfs = flags.Arg(0)
	}
	only, _, _ := strings.Cut(p.Only, "/")
	if flags.NArg() > 1 || p.Runs < 0 || p.net.Mbps <= 0 || only != "" && !slices.Contains(p.sections(p.groups), only) {
		flags.Usage()
		return nil, errors.New("usage")
	}
	return p, nil
}

// sections returns the names of the sections of some groups.
func (p *program) sections(groups []string) []string {
	var names []string
	for _, g := range groups {
		group := p.group(g, &runner.Runner{Settings: p.Settings})
		names = append(names, group.Names()...)
	}
	return names
}

// report measures and prints.
func (p *program) report(ctx context.Context, stdout io.Writer) error {
	if _, err := os.Stat(p.Imgfs); err != nil && !slices.Equal(p.groups, []string{"index"}) {
		return fmt.Errorf("%w: make build", err)
	}
	if p.trace != "" {
		f, err := os.Create(p.trace)
		if err != nil {
			return err
		}
		defer f.Close()
		p.net.Trace, p.starts.Trace = f, f
	}
	rep := &figures.Report{Machine: figures.ThisMachine()}
	only, _, _ := strings.Cut(p.Only, "/")
	for _, name := range p.groups {
		if only != "" && !slices.Contains(p.sections([]string{name}), only) {
			continue
		}
		r := runner.New(ctx, p.Settings)
		if err := r.Measure(p.group(name, r)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rep.Groups = append(rep.Groups, r.Group)
	}
	if p.json {
		return rep.WriteJSON(stdout)
	}
	return rep.WriteMarkdown(stdout)
}
