package grep

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"iter"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ordered"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A Config is where lines go.
type Config struct {
	// Output takes the lines.
	Output io.Writer
	// Terminal says that Output is a terminal.
	Terminal bool
	// Arguments is how many there will be.
	Arguments int
	// Message prints a message about a file.
	Message func(string)
	// Failed prints an error about a file.
	Failed func(error)
}

// A file is one to be searched.
type file struct {
	image    *entry.Image
	typed    string // as it is printed, but for what acts on a terminal
	shown    string // as it is printed
	inImage  string // absolute
	node     fs.Node
	named    bool // lines have its name
	terminal bool
	err      error // why it cannot be searched
}

// A Grepper is one run of grep. It is for one goroutine.
type Grepper struct {
	ctx      context.Context
	o        Options
	pattern  *pattern
	out      Config
	w        *bufio.Writer
	array    *show.Array // nil: no JSON
	printed  bool        // anything so far
	selected bool        // a line so far
	failed   bool
}

// errFound ends the search at the first line, with -q.
var errFound = errors.New("found")

// NewGrepper returns a Grepper with the options, which must have been checked, for lines
// that match one of some patterns. Finish must be called at the end.
func (o *Options) NewGrepper(ctx context.Context, patterns []string, config Config) (*Grepper, error) {
	p, err := o.compile(patterns)
	if err != nil {
		return nil, err
	}
	g := &Grepper{ctx: ctx, o: *o, pattern: p, out: config, w: bufio.NewWriterSize(config.Output, 64<<10)}
	g.o.color = o.colors != nil && o.colors(config.Terminal)
	if o.JSON && !o.Quiet {
		g.array = show.NewArray(g.w)
	}
	return g, nil
}

// Add searches what an argument names. An error is *fs.PathError of io/fs or
// syscall.Errno, or one of writing.
func (g *Grepper) Add(a entry.Argument) error {
	if g.Found() {
		return nil
	}
	n, err := a.Image.Tree.Lookup(a.Path, true)
	if err != nil {
		return err
	}
	f := g.file(file{image: a.Image, typed: a.Typed, inImage: "/" + strings.Trim(a.Path, "/"), node: n})
	dir := isDir(n)
	f.named = g.o.names == always || g.o.names == ifSeveral && (g.out.Arguments > 1 || dir && g.o.Recursive)
	switch {
	case dir && g.o.excludesDir(a.Typed, true), !dir && g.o.choices.excludes(a.Typed, true):
		return nil
	case dir && !g.o.Recursive:
		return syscall.EISDIR
	case dir:
		w := walk{g: g, named: f.named, above: make(map[fs.Node]bool)}
		return g.files(func(yield func(*file) bool) { w.below(f, yield) })
	case n.Mode()&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	}
	return g.files(func(yield func(*file) bool) { yield(f) })
}

func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }

func (g *Grepper) file(f file) *file {
	f.shown, f.terminal = shown(f.typed, g.out.Terminal), g.out.Terminal
	return &f
}

// Found reports whether -q has its answer.
func (g *Grepper) Found() bool { return g.o.Quiet && g.selected }

// A walk goes through a directory.
type walk struct {
	g     *Grepper
	named bool
	above map[fs.Node]bool // the directories on the way, with -R
}

// below yields the files below a directory, the names of each in byte order.
func (w *walk) below(dir *file, yield func(*file) bool) bool {
	if w.g.o.Follow {
		if w.above[dir.node] {
			return true // GNU grep warns, and goes on
		}
		w.above[dir.node] = true
		defer delete(w.above, dir.node)
	}
	for name, n := range dir.node.Children() {
		kind := n.Mode() & unix.S_IFMT
		if kind != unix.S_IFREG && kind != unix.S_IFDIR && !(kind == unix.S_IFLNK && w.g.o.Follow) {
			continue
		}
		f := file{image: dir.image, typed: join(dir.typed, name), inImage: join(dir.inImage, name), node: n, named: w.named}
		if kind == unix.S_IFLNK {
			if f.node, f.err = dir.image.Tree.Lookup(f.inImage, true); f.err == nil {
				kind = f.node.Mode() & unix.S_IFMT
			}
		}
		switch {
		case kind == unix.S_IFDIR && w.g.o.excludesDir(name, false), kind != unix.S_IFDIR && w.g.o.choices.excludes(name, false):
		case f.err == nil && kind == unix.S_IFDIR:
			if len(f.inImage) > maxPath {
				f.err = syscall.ENAMETOOLONG
			} else if !w.below(&f, yield) {
				return false
			} else {
				continue
			}
			fallthrough
		case f.err != nil, kind == unix.S_IFREG:
			if !yield(w.g.file(f)) {
				return false
			}
		}
	}
	return true
}

// maxPath is how long a path may get by following symlinks. In an image paths have at
// most 4,096 bytes.
const maxPath = 64 << 10

// join returns the path of a name in a directory.
func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// maxWorkers is how many files are searched at once, at most: each has a buffer, of
// maxLine bytes at worst.
const maxWorkers = 16

// files searches files, and prints what is found in their order.
func (g *Grepper) files(files iter.Seq[*file]) error {
	free := sync.Pool{New: func() any {
		return &search{Options: &g.o, pattern: g.pattern, passesEmpty: !g.o.invert && !g.pattern.matches(nil)}
	}}
	err := ordered.Each(g.ctx, min(runtime.GOMAXPROCS(0), maxWorkers), files, func(ctx context.Context, f *file, yield func(result) bool) {
		if f.err != nil {
			yield(result{file: f, err: f.err})
			return
		}
		s := free.Get().(*search)
		s.ctx = ctx
		s.run(f, yield)
		free.Put(s)
	}, g.print)
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}

// print prints a part of what was found.
func (g *Grepper) print(r result) error {
	if err := g.rows(r); err != nil {
		return err
	}
	if r.file == nil {
		return nil
	}
	if r.err != nil {
		if err := g.ctx.Err(); err != nil {
			return err
		}
		g.failed = true
		g.fail(r.file, r.err)
	}
	g.selected = g.selected || r.selected
	if g.Found() {
		return errFound
	}
	if r.binary && g.array == nil {
		g.out.Message(r.file.typed + ": binary file matches")
	}
	return nil
}

// rows prints lines.
func (g *Grepper) rows(r result) error {
	for _, row := range r.rows {
		if err := g.array.Add(row); err != nil {
			return err
		}
	}
	if len(r.text) > 0 {
		if r.group && g.printed {
			r.text = append(g.o.appendSeparator(nil), r.text...)
		}
		g.printed = true
		if _, err := g.w.Write(r.text); err != nil {
			return err
		}
	}
	return nil
}

// fail prints the error about a file.
func (g *Grepper) fail(f *file, err error) {
	if g.o.NoMessages {
		return
	}
	var looked *iofs.PathError
	if errors.As(err, &looked) {
		err = looked.Err
	}
	err = fmt.Errorf("%s: %w", f.typed, err)
	if !strings.HasPrefix(f.typed, f.image.Name+":/") {
		err = fmt.Errorf("%s: %w", f.image.Title, err)
	}
	g.out.Failed(err)
}

// Finish ends the output. It tells whether a line was selected, and whether all files
// could be read.
func (g *Grepper) Finish() (selected, ok bool, err error) {
	if g.array != nil {
		if err := g.array.Close(); err != nil {
			return false, false, err
		}
	}
	return g.selected, !g.failed, g.w.Flush()
}
