// Package network measures what imgfs moves over a network and how long it
// takes: it fills Debian's docker-registry, puts a proxy with a round trip and
// a bandwidth before it, and drives the imgfs that its argument names. It
// prints a table, and exits 0 also when a wanted figure is missed; not so when
// something is broken or bytes differ.
//
//	go run ./testdata/bench net [-only NAME] [-runs N] [-rtt D] [-mbps N] [-trace FILE] [-json] bin/imgfs
//
// With CORPORA set (the lab's README) the image is the lab's node, else one
// that is made. docs/performance.md has results and what each row is about.
package network

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/peers"
)

// sections are the parts of the report, in its order.
var sections = []struct {
	name, title string
	run         func(*bench) error
}{
	{"cold", "Indexes there, none of the image's bytes", (*bench).cold},
	{"whole", "Reading the whole tree", (*bench).whole},
	{"first", "The first mount, nothing there", (*bench).first},
	{"budget", "Images through a cache with a budget", (*bench).budget},
	{"stats", "What imgfs stats says, and what the proxy saw", (*bench).stats},
	{"latency", "Cold reads of small files beside --prefetch", (*bench).latency},
}

// A bench is one run of the program.
type bench struct {
	settings
	ctx     context.Context
	imgfs   string // the program
	corpora string // where the lab's images are; "" for none
	dir     string // temporary
	logf    func(format string, args ...any)
	trace   io.Writer // nil for none

	registry string // where it listens
	proxy    *proxy
	node     *image
	stops    []func() error // in the order of the starts

	section string // that runs
	parts   []part
	figures []figure
}

// settings are what the tests have smaller.
type settings struct {
	runs  int
	only  string // a section; empty means all
	delay time.Duration
	mbps  float64
	size  imageSize // of a made image
	reads int       // small files that are read
	// pause is what a reader does between two reads beside a prefetch.
	pause time.Duration
	// What goes through the cache with a budget.
	images    int
	imageSize int64 // of the smallest one; the biggest is twice as big
	cacheSize int64
}

func defaults() settings {
	return settings{size: ordinary, reads: 100, pause: 100 * time.Millisecond, images: 20, imageSize: 30 << 20, cacheSize: 200e6}
}

// Run is the group of sections as a program.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == readCommand {
		return runRead(args[1:], stdin, stdout, stderr)
	}
	b := &bench{settings: defaults(), ctx: ctx, corpora: os.Getenv("CORPORA")}
	b.logf = func(format string, args ...any) { fmt.Fprintf(stderr, "bench net: "+format+"\n", args...) }
	flags := flag.NewFlagSet("bench net", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&b.runs, "runs", 3, "how often each thing is measured; of times the median counts, of what is moved by a cold read the most")
	flags.StringVar(&b.only, "only", "", "one `section`: "+strings.Join(sectionNames(), ", "))
	flags.DurationVar(&b.delay, "rtt", 20*time.Millisecond, "round trip that each request takes")
	flags.Float64Var(&b.mbps, "mbps", 100, "bandwidth of the line in megabits a second")
	traceFile := flags.String("trace", "", "`file` that gets a line for each request")
	asJSON := flags.Bool("json", false, "print JSON instead of Markdown")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 || b.runs < 1 || b.mbps <= 0 || b.only != "" && !slices.Contains(sectionNames(), b.only) {
		flags.Usage()
		return 2
	}
	if err := b.report(flags.Arg(0), *traceFile, *asJSON, stdout); err != nil {
		b.logf("%v", err)
		return 1
	}
	return 0
}

func sectionNames() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

// report measures and prints.
func (b *bench) report(imgfs, traceFile string, asJSON bool, stdout io.Writer) (err error) {
	if b.imgfs, err = filepath.Abs(imgfs); err != nil {
		return err
	}
	if traceFile != "" {
		f, err := os.Create(traceFile)
		if err != nil {
			return err
		}
		defer f.Close()
		b.trace = f
	}
	rep := &report{Machine: figures.ThisMachine()}
	if err := b.measureAll(); err != nil {
		return err
	}
	rep.Parts, rep.Figures = b.parts, b.figures
	rep.Line = fmt.Sprintf("%v a round trip, %s", b.delay, figures.Number(b.mbps, "Mbit/s"))
	rep.Image = fmt.Sprintf("%s, %d layers, %s compressed", b.node.what, len(b.node.Manifest.Layers), megabytes(b.node.Size()))
	if asJSON {
		return figures.WriteJSON(stdout, rep)
	}
	return rep.writeMarkdown(stdout)
}

// measureAll runs the sections asked for.
func (b *bench) measureAll() (err error) {
	dir, err := os.MkdirTemp("", "bench-net-")
	if err != nil {
		return err
	}
	if b.dir, err = filepath.EvalSymlinks(dir); err != nil { // as the mount table has it
		return err
	}
	defer func() { err = errors.Join(err, b.cleanUp(context.WithoutCancel(b.ctx))) }()
	registry, err := peers.StartRegistry(b.ctx, b.dir)
	if err != nil {
		return err
	}
	b.registry, b.stops = registry.Host, append(b.stops, registry.Stop)
	if b.proxy, err = newProxy(b.registry); err != nil {
		return err
	}
	b.stops = append(b.stops, b.proxy.close)
	b.logf("filling the registry")
	if b.node, err = b.mainImage(); err != nil {
		return err
	}
	if err := b.push(b.node); err != nil {
		return err
	}
	for _, s := range sections {
		if b.only != "" && b.only != s.name {
			continue
		}
		b.logf("%s", s.title)
		b.section = s.title
		b.parts = append(b.parts, part{s.title, b.commandFor(s.name)})
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// commandFor is what repeats a section.
func (b *bench) commandFor(section string) string {
	environment := ""
	if b.corpora != "" {
		environment = "CORPORA=… "
	}
	return fmt.Sprintf("%sgo run ./testdata/bench net -only %s -runs %d -rtt %v -mbps %g bin/imgfs", environment, section, b.runs, b.delay, b.mbps)
}

// slow makes the line what it is for; fast takes away delay and bound.
func (b *bench) slow() { b.proxy.set(b.delay, b.bandwidth()) }

func (b *bench) fast() { b.proxy.set(0, 0) }

// bandwidth is in bytes a second.
func (b *bench) bandwidth() float64 { return b.mbps * 1e6 / 8 }

// traced writes down what the proxy was asked since forget.
func (b *bench) traced(what string) {
	if b.trace == nil {
		return
	}
	fmt.Fprintf(b.trace, "# %s: %s\n", b.section, what)
	for _, e := range b.proxy.exchanges() {
		fmt.Fprintf(b.trace, "%.4f\t%.4f\t%s\t%d\t%s\t%s\t%s\t%d\n", e.Begun.Seconds(), e.End.Seconds(), e.Kind, e.Status, e.Method, e.Path, e.Range, e.Bytes)
	}
}

// add puts a row without a wish into the table.
func (b *bench) add(name string, value float64, unit, note string) {
	b.figures = append(b.figures, figure{Section: b.section, Name: name, Unit: unit, Value: &value, Note: note})
}

// want puts a row into the table with what it should be at most.
func (b *bench) want(name string, value, most float64, unit, note string) {
	b.figures = append(b.figures, figure{Section: b.section, Name: name, Unit: unit, Value: &value, Most: &most, Note: note})
}

// missing puts a row into the table that could not be measured.
func (b *bench) missing(name, why string, most float64, unit string) {
	b.figures = append(b.figures, figure{Section: b.section, Name: name, Unit: unit, Missing: why, Most: &most})
}

func megabytes(n int64) string { return figures.Number(float64(n)/1e6, "MB") }

// median returns the middle one of some values, or the mean of the two there.
func median[V int64 | float64 | time.Duration](values []V) V {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
