// Package index measures the layer index beside its peers: inflating, the
// pass that makes an index, its size, loading it, and reading through it. It
// prints a table, and exits 0 also when a wanted figure is missed; not so when
// something is broken or anybody's bytes differ.
//
//	go run ./testdata/bench index [-runs N] [-only NAME] [-pull] [-json]
//
// With CORPORA set (the lab's README) the layers of the lab's images base and
// node are measured too. Programs that are compared with are looked for on
// PATH; one that is not there is a row that says so. docs/performance.md has
// results and what each row is about.
package index

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
	"sync"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// sections are the parts of the report, in its order.
var sections = []struct {
	name, title string
	run         func(*bench) error
}{
	{"pass", "The full pass with all hashes", (*bench).pass},
	{"soci", "The full pass against SOCI's ztoc builder, wall time", (*bench).soci},
	{"index", "imgfs index of the node image from a registry on loopback", (*bench).indexImage},
	{"size", "Size of the index", (*bench).indexSize},
	{"load", "Loading: cold index files to the merged tree, in a new process", (*bench).load},
	{"cold", "A cold read of 4 KiB, mean of 100", (*bench).coldRead},
	{"sequential", "Reading a whole layer in requests of 128 KiB, wall time", (*bench).sequential},
}

// A bench is one run of the program.
type bench struct {
	ctx     context.Context
	runs    int
	pull    bool
	only    string // section, or section/input; empty means all
	dir     string // temporary
	logf    func(format string, args ...any)
	inputs  []*input
	corpora string // where the lab's images are; "" for none

	section string // that runs
	figures []figure
	ztocs   map[string]ztoc // by input
	// sociProgram is compileSOCI, once.
	sociProgram func() (string, error)
}

// Run is the group of sections as a program.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == loadCommand {
		return runLoad(ctx, args[1:], stdout, stderr)
	}
	b := &bench{
		ctx: ctx, corpora: os.Getenv("CORPORA"), ztocs: map[string]ztoc{},
		logf: func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) },
	}
	b.sociProgram = sync.OnceValues(b.compileSOCI)
	flags := flag.NewFlagSet("bench index", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&b.runs, "runs", 5, "how often each thing is measured; the median counts")
	flags.StringVar(&b.only, "only", "", "one `section`, or section/input: "+sectionNames())
	flags.BoolVar(&b.pull, "pull", false, "compare with podman pull, which takes minutes")
	asJSON := flags.Bool("json", false, "print JSON instead of Markdown")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || b.runs < 1 || !b.known() {
		flags.Usage()
		return 2
	}
	rep := &report{Machine: figures.ThisMachine(), Corpora: b.corpora != ""}
	if err := b.measureAll(); err != nil {
		fmt.Fprintln(stderr, "bench index:", err)
		return 1
	}
	rep.Command = strings.TrimSpace("go run ./testdata/bench index " + strings.Join(args, " "))
	rep.Figures = b.figures
	for _, in := range b.inputs {
		rep.Inputs = append(rep.Inputs, inputRow{in.Name, in.What, in.Digest, in.Size, in.tarSize})
	}
	write := rep.writeMarkdown
	if *asJSON {
		write = func(w io.Writer) error { return figures.WriteJSON(w, rep) }
	}
	if err := write(stdout); err != nil {
		fmt.Fprintln(stderr, "bench index:", err)
		return 1
	}
	return 0
}

func sectionNames() string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// known tells whether -only names a section.
func (b *bench) known() bool {
	name, _, _ := strings.Cut(b.only, "/")
	return name == "" || slices.Contains(strings.Split(sectionNames(), ", "), name)
}

// measureAll runs the sections asked for.
func (b *bench) measureAll() (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-index-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	name, input, _ := strings.Cut(b.only, "/")
	if err := b.findInputs(input); err != nil {
		return err
	}
	for _, s := range sections {
		if name != "" && name != s.name {
			continue
		}
		b.section = s.title
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// add puts a row into the table.
func (b *bench) add(f figure) {
	f.Section = b.section
	b.figures = append(b.figures, f)
}

// moduleDir returns the directory of the module that is being measured.
func (b *bench) moduleDir() (string, error) {
	out, err := exec.CommandContext(b.ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if !filepath.IsAbs(mod) {
		return "", errors.New("not run inside the module of imgfs")
	}
	return filepath.Dir(mod), nil
}
