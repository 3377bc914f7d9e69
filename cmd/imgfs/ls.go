package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func lsCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "ls",
		Usage: "[-a | -A] [-l] [-R] IMAGE [PATH...] | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE [PATH...]", Text: "list files of the image"},
		About: `Lists directories and files of the image as ls does; without PATH its root.
Names that begin with a dot are not shown unless asked for. On a terminal a name
that could act on it is quoted as a shell reads it, as in $'esc\033[31m'.`,
		Example: "imgfs ls -l fedora:latest /etc/os-release",
		Setup: func(f *pflag.FlagSet) cli.Action {
			l := lister{}
			f.BoolVarP(&l.all, "all", "a", false, "names that begin with a dot as well, . and .. too")
			f.BoolVarP(&l.almostAll, "almost-all", "A", false, "names that begin with a dot as well, but not . and ..")
			f.BoolVarP(&l.long, "long", "l", false, "mode, links, owner, group, size, time (UTC) and name, as ls -ln does")
			f.BoolVarP(&l.recursive, "recursive", "R", false, "the directories below as well")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("ls: no image named")
				}
				return l.run(ctx, e, args)
			}
		},
	}
}

// A lister is imgfs ls. It prints files as ls does, names byte for byte.
type lister struct {
	all, almostAll  bool
	long, recursive bool
	headings        bool
	printed         bool // anything so far
	terminal        bool // stdout is one: names must not act on it
	w               *bufio.Writer
}

// A row is a file to be printed.
type row struct {
	name string
	node fs.Node
}

func (l *lister) run(ctx context.Context, e *env, args []string) error {
	named, err := fileArguments("ls", args)
	if err != nil {
		return err
	}
	if len(named) == 0 {
		named = []fileArgument{{typed: "/", image: args[0], path: "/"}}
	}
	t, err := e.openTrees("ls")
	if err != nil {
		return err
	}
	defer t.close()
	l.w = bufio.NewWriterSize(cli.NewWriter(ctx, e.Raw), 64<<10)
	_, l.terminal = cli.Terminal(e.Raw)
	l.headings = len(named) > 1 || l.recursive
	var files, dirs []row
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		n, err := l.lookup(img.Tree(), a.path)
		switch {
		case err != nil:
			return err
		case isDir(n):
			dirs = append(dirs, row{a.typed, n})
		default:
			files = append(files, row{a.typed, n})
		}
		return nil
	})
	if err := l.arguments(ctx, files, dirs); err != nil {
		return err
	}
	if err := l.w.Flush(); err != nil {
		return err
	}
	return missing
}

// lookup finds the file that an argument names. Without -l a symlink to a directory
// stands for the directory.
func (l *lister) lookup(t *fs.Tree, name string) (fs.Node, error) {
	n, err := t.Lookup(name, false)
	if err != nil || l.long {
		return n, err
	}
	if to, err := t.Lookup(name, true); err == nil && isDir(to) {
		return to, nil
	}
	return n, nil
}

func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }

// arguments prints the arguments as ls does: files first, both sorted.
func (l *lister) arguments(ctx context.Context, files, dirs []row) error {
	slices.SortStableFunc(files, byName)
	slices.SortStableFunc(dirs, byName)
	if err := l.print(ctx, slices.Values(files)); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := l.dir(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// dir prints a directory, and with -R the directories below it.
func (l *lister) dir(ctx context.Context, d row) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.headings {
		if l.printed {
			l.w.WriteByte('\n')
		}
		fmt.Fprintf(l.w, "%s:\n", l.shown(d.name))
		l.printed = true
	}
	rows := l.children(d.node)
	if err := l.print(ctx, rows); err != nil || !l.recursive {
		return err
	}
	for c := range look(ctx, rows) {
		if !isDir(c.node) || c.name == "." || c.name == ".." {
			continue
		}
		if err := l.dir(ctx, row{strings.TrimSuffix(d.name, "/") + "/" + c.name, c.node}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// children returns the rows of a directory, in byte order. They are not gathered: a
// directory may have millions of names.
func (l *lister) children(n fs.Node) iter.Seq[row] {
	return func(yield func(row) bool) {
		var dots []row
		if l.all && !l.almostAll {
			dots = []row{{".", n}, {"..", n.Parent()}}
		}
		for name, c := range n.Children() {
			for len(dots) > 0 && dots[0].name < name {
				if !yield(dots[0]) {
					return
				}
				dots = dots[1:]
			}
			if (l.all || l.almostAll || !strings.HasPrefix(name, ".")) && !yield(row{name, c}) {
				return
			}
		}
		for _, d := range dots {
			if !yield(d) {
				return
			}
		}
	}
}

// look passes rows on until ctx ends, which it checks for now and then.
func look(ctx context.Context, rows iter.Seq[row]) iter.Seq[row] {
	return func(yield func(row) bool) {
		n := 0
		for r := range rows {
			if n++; n%1024 == 0 && ctx.Err() != nil || !yield(r) {
				return
			}
		}
	}
}

func byName(a, b row) int { return cmp.Compare(a.name, b.name) }

// print prints a line for each row, until ctx ends. A failure to write shows at the
// end, in Flush.
func (l *lister) print(ctx context.Context, rows iter.Seq[row]) error {
	if l.long {
		l.printLong(ctx, rows)
		return ctx.Err()
	}
	for r := range look(ctx, rows) {
		l.printed = true
		fmt.Fprintf(l.w, "%s\n", l.shown(r.name))
	}
	return ctx.Err()
}

// shown returns a name as ls prints it: byte for byte, but quoted on a terminal if
// something in it could act on that.
func (l *lister) shown(name string) string {
	if !l.terminal {
		return name
	}
	return printable.Name(name)
}
