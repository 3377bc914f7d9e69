// Package fuse measures what a mounted image feels like beside a local
// disk: it mounts the image that imgfs serves, with passthrough and io_uring and
// without, and the same tree by way of squashfuse_ll, overlayfs, erofs, bindfs
// and not at all, and does the same with each of them, in turns. It prints a
// table, and exits 0 also when a wanted figure is missed; not so when something
// is broken or bytes differ.
//
//	go run ./testdata/bench fuse [-only NAME] [-runs N] [-systems NAMES] [-also 'LABEL: WORDS'] [-loop] [-work DIR] [-json] bin/imgfs
//
// It needs root, for mounts and for dropping what the kernel has cached. All
// that is read lies on one ext4: the machine's own if the directory for images is
// on one, else one in a file. With CORPORA set (the lab's README) the image is
// the lab's node, else one of Go's sources. docs/performance.md has results and
// what each row is about.
package fuse

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	needs       []string // programs
}{
	{"walk", "Walking the tree", (*bench).walk, nil},
	{"small", "Reading all small files", (*bench).small, nil},
	{"big", "Reading one big file", (*bench).big, nil},
	{"packed", "Reading what is on disk only as the registry gave it", (*bench).packed, []string{"taskset", "gzip"}},
	{"start", "Starting a program", (*bench).start, []string{"chroot"}},
}

// A bench is one run of the program.
type bench struct {
	settings
	ctx     context.Context
	imgfs   string // the program
	corpora string // where the lab's images are; "" for none
	self    string // this program, which reads as well
	dir     string // temporary
	disk    string // where everything lies that is read
	logf    func(format string, args ...any)

	registry string // where it listens
	systems  []*system
	images   map[string]*image
	stops    []func() error // in the order of the starts
	mounts   int            // so far, for their names

	section string // that runs
	report  report
}

// settings are what the tests have smaller.
type settings struct {
	runs   int
	only   string   // a section; empty means all
	work   string   // where images are kept for the next run; empty means not
	chosen []string // systems; empty means all
	also   []variant
	loop   bool // have a file system in a file for it all, in any case
	warm   bool // leave alone what the kernel has cached
	asIs   bool // leave alone what the kernel offers
	source func(layout string) error
	// sizes of made files
	bigSize, packedSize int64
	diskSize            int64         // of the file system, at most
	pages               int           // that are read from a mapping
	starts              int           // of a program, one after the other
	again               int           // how often what is warm is measured in a run
	patience            time.Duration // with imgfs, to keep a content or to read past itself
}

func defaults() settings {
	return settings{source: goSources, bigSize: 1 << 30, packedSize: 100e6, diskSize: 32 << 30, pages: 2000, starts: 20, again: 3, patience: 20 * time.Second}
}

// Run is the group of sections as a program.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == readCommand {
		return runRead(args[1:], stdin, stdout, stderr)
	}
	b := &bench{settings: defaults(), ctx: ctx, corpora: os.Getenv("CORPORA")}
	b.logf = func(format string, args ...any) { fmt.Fprintf(stderr, "bench fuse: "+format+"\n", args...) }
	flags := flag.NewFlagSet("bench fuse", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&b.runs, "runs", 3, "how often each thing is measured; the median counts")
	flags.StringVar(&b.only, "only", "", "one `section`: "+strings.Join(sectionNames(), ", "))
	flags.StringVar(&b.work, "work", "", "`directory` that keeps the images made, for the next run")
	flags.BoolVar(&b.loop, "loop", false, "have an ext4 in a file for all that is read, also where there is one without")
	flags.Func("systems", "measure only these `NAMES`, with commas between them", func(text string) error {
		b.chosen = strings.Split(text, ",")
		return nil
	})
	flags.Func("also", "a column more of imgfs, `'LABEL: WORDS'`: flags of imgfs mount, and NAME=VALUE for its environment", func(text string) error {
		v, err := parseVariant(text)
		b.also = append(b.also, v)
		return err
	})
	asJSON := flags.Bool("json", false, "print JSON instead of Markdown")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 || b.runs < 1 || b.only != "" && !slices.Contains(sectionNames(), b.only) {
		flags.Usage()
		return 2
	}
	if err := b.printReport(flags.Arg(0), *asJSON, stdout); err != nil {
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

// printReport measures and prints.
func (b *bench) printReport(imgfs string, asJSON bool, stdout io.Writer) (err error) {
	if b.imgfs, err = filepath.Abs(imgfs); err != nil {
		return err
	}
	if _, err := os.Stat(b.imgfs); err != nil {
		return err
	}
	if err := b.measureAll(); err != nil {
		return err
	}
	if asJSON {
		return figures.WriteJSON(stdout, &b.report)
	}
	return b.report.writeMarkdown(stdout)
}

// measureAll prepares everything, runs the sections asked for and cleans up.
func (b *bench) measureAll() (err error) {
	b.report = report{Machine: figures.ThisMachine(), Lacks: map[string]string{}}
	if why := b.unable(); why != "" {
		b.logf("nothing is measured: %s", why)
		return b.nothing(why)
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-fuse-")
	if err != nil {
		return err
	}
	if b.dir, err = filepath.EvalSymlinks(dir); err != nil { // as the mount table has it
		return err
	}
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	if b.work == "" {
		b.work = b.dir
	} else if b.work, err = filepath.Abs(b.work); err != nil {
		return err
	}
	b.images, b.stops = map[string]*image{}, nil
	if err := b.place(); err != nil {
		return err
	}
	if b.systems, err = b.allSystems(); err != nil {
		return err
	}
	for _, s := range b.systems {
		b.report.Columns = append(b.report.Columns, [2]string{s.name, s.title})
	}
	b.report.Columns = append(b.report.Columns, [2]string{nameGzip, "GNU gzip of the layer's blob"})
	registry, err := peers.StartRegistry(b.ctx, b.dir)
	if err != nil {
		return err
	}
	b.registry, b.stops = registry.Host, append(b.stops, registry.Stop)
	return b.measure()
}

// measure runs the sections asked for, with all there that they need.
func (b *bench) measure() error {
	for _, s := range sections {
		if b.only != "" && b.only != s.name {
			continue
		}
		b.logf("%s", s.title)
		b.begin(s.name, s.title)
		if why := lacking(s.needs...); why != "" {
			b.unmeasured(s.name, why)
			continue
		}
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// begin says what the rows from here on belong to.
func (b *bench) begin(name, title string) {
	b.section = title
	b.report.Parts = append(b.report.Parts, part{title, b.commandFor(name)})
}

// nothing makes a report of what is not known.
func (b *bench) nothing(why string) error {
	for _, s := range sections {
		if b.only != "" && b.only != s.name {
			continue
		}
		b.begin(s.name, s.title)
		b.unmeasured(s.name, why)
	}
	return nil
}

// unmeasured makes figures of what is not known of a section.
func (b *bench) unmeasured(section, why string) {
	for i := range wishes {
		if w := &wishes[i]; w.section == section {
			b.report.Figures = append(b.report.Figures, w.unknown(b.section, nameImgfs, why))
		}
	}
	if section == "walk" {
		b.report.Figures = append(b.report.Figures, figure{Section: b.section, Name: memoryName(nameImgfs), Missing: why})
	}
}

// unable says why nothing can be measured here; "" if it can.
func (b *bench) unable() string {
	if os.Geteuid() != 0 {
		return "it needs root"
	}
	if err := b.dropCaches(); err != nil {
		return "what the kernel has cached cannot be dropped: " + err.Error()
	}
	if why := lacking("find", "df", "umoci", "skopeo"); why != "" {
		return why
	}
	if _, err := peers.LookRegistry(); err != nil {
		return "not installed: docker-registry"
	}
	return ""
}

// lacking says which programs are not installed; "" if all are.
func lacking(programs ...string) string {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if missing == nil {
		return ""
	}
	return "not installed: " + strings.Join(missing, ", ")
}

// commandFor is what repeats a section.
func (b *bench) commandFor(section string) string {
	environment, also := "", ""
	if b.corpora != "" {
		environment = "CORPORA=… "
	}
	if b.chosen != nil {
		also += fmt.Sprintf(" -systems '%s'", strings.Join(b.chosen, ","))
	}
	if b.loop {
		also += " -loop"
	}
	for _, v := range b.also {
		also += fmt.Sprintf(" -also '%s: %s'", v.label, strings.Join(append(v.environment, v.flags...), " "))
	}
	return fmt.Sprintf("%sgo run ./testdata/bench fuse -only %s -runs %d%s bin/imgfs", environment, section, b.runs, also)
}
