package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/diff"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// exitDifferent is the exit code of a diff that found differences, as that of diff(1);
// exitTrouble is that of one that failed.
const (
	exitDifferent = 1
	exitTrouble   = 2
)

// diffOptions are what the flags of diff say.
type diffOptions struct {
	trees    *treeFlags
	compare  treediff.Options
	stat     statFlag
	unified  bool
	names    bool
	null     bool
	json     bool
	packages bool
	exact    bool
	color    colorFlag
	textSize cli.Size
}

func diffCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "diff",
		Usage:   "[FLAGS] IMAGE1 IMAGE2 [PATH...] | IMAGE1:/PATH IMAGE2:/PATH",
		Entry:   cli.Entry{Usage: "IMAGE1 IMAGE2", Text: "list what the files of two images differ in"},
		Failure: exitTrouble,
		About: `Prints a line for each path: + what was added, - what was removed, ~ what is not
the same, and in what. Contents are compared by their digests, and read only
where a layer has none.`,
		OtherFlags: map[string]string{
			"--name-status": "leave it out: each line begins with +, - or ~", "--numstat": "--stat --bytes", "--shortstat": "--stat | tail -n 1",
			"--brief": "leave it out, or --name-only", "-r": "leave it out: all below PATH is compared", "--recursive": "leave it out: all below PATH is compared",
			"--no-dereference": "leave it out: symlinks are compared as such", "--exclude": "imgfs diff IMAGE1 IMAGE2 PATH...", "-p": "-u", "--patch": "-u",
			"-N": "leave it out: -u shows all of what was added",
		},
		Notes:   "Exit code: 0 nothing differs, 1 something does, 2 it could not be compared.",
		Example: "imgfs diff -u fedora:43 fedora:latest /etc",
		Setup: func(f *pflag.FlagSet) cli.Action {
			o := new(diffOptions)
			f.BoolVarP(&o.unified, "unified", "u", false, "print how text files differ, as diff -u does")
			f.Var(&o.stat, "stat", "print bytes that came and went ([=N]: N names a row)")
			f.Lookup("stat").NoOptDefVal = "0"
			f.BoolVar(&o.packages, "packages", false, "compare what dpkg, apk and rpm have installed")
			f.BoolVar(&o.names, "name-only", false, "print nothing but paths")
			f.BoolVarP(&o.null, "null", "z", false, "end each path with NUL, with --name-only")
			f.BoolVar(&o.json, "json", false, "print JSON")
			f.Var((*ignoreFlag)(&o.compare.Ignore), "ignore", "`WHAT` of mode,owner,time,xattrs,hardlinks")
			f.BoolVar(&o.compare.DirTimes, "dir-times", false, "compare the times of directories, too")
			f.Var(&o.textSize, "max-text", "`SIZE` up to which -u compares lines (default 8MiB)")
			f.BoolVar(&o.exact, "bytes", false, "exact numbers, with --stat")
			f.Var(&o.color, "color", "[=WHEN] color lines: always, auto, or never (default)")
			color := f.Lookup("color")
			color.NoOptDefVal, color.Annotations = "always", map[string][]string{cli.Words: colorWords}
			o.trees = newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				return runDiff(ctx, e, o, args)
			}
		},
	}
}

func runDiff(ctx context.Context, e *env, o *diffOptions, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	sides, paths, err := diffArguments(args)
	if err != nil {
		return err
	}
	if o.packages && (len(paths) > 0 || sides[0].joined) {
		return cli.Usagef("diff: --packages compares whole images, and takes no path")
	}
	t, err := e.openTrees("diff", o.trees)
	if err != nil {
		return err
	}
	defer t.close()
	images, same, err := t.pair(ctx, sides, len(paths) == 0 && !sides[0].joined)
	if err != nil {
		return err
	}
	d := &difference{env: e, options: o, sides: sides, images: images, same: same}
	if o.packages {
		return d.printPackages(ctx)
	}
	return d.print(ctx, paths)
}

// check refuses flags that exclude each other.
func (o *diffOptions) check() error {
	var forms []string
	for _, f := range []struct {
		name  string
		given bool
	}{{"-u", o.unified}, {"--stat", o.stat.given}, {"--name-only", o.names}, {"--packages", o.packages}, {"--json", o.json && !o.packages}} {
		if f.given {
			forms = append(forms, f.name)
		}
	}
	switch {
	case len(forms) > 1:
		return cli.Usagef("diff: %s exclude each other", strings.Join(forms, " and "))
	case o.null && !o.names:
		return cli.Usagef("diff: --null is for --name-only")
	}
	return nil
}

// diffArguments returns the two sides that the arguments name, and the paths to compare
// in both; without any it is each side's own path.
func diffArguments(args []string) (sides [2]fileArgument, paths []string, err error) {
	if len(args) < 2 {
		return sides, nil, cli.Usagef("diff: two images are needed")
	}
	for i, arg := range args[:2] {
		sides[i] = fileArgument{typed: arg, image: arg, path: "/"}
		if img, below, ok := remote.CutPath(arg); ok {
			sides[i] = fileArgument{typed: arg, image: img, path: below, joined: true}
		}
	}
	if sides[0].joined != sides[1].joined { // the same path in both
		from, to := &sides[0], &sides[1]
		if to.joined {
			from, to = to, from
		}
		to.path, to.joined, to.typed = from.path, true, to.image+":"+from.path
	}
	if sides[0].joined && len(args) > 2 {
		hint := fmt.Sprintf("imgfs diff %s %s PATH...", sides[0].image, sides[1].image)
		return sides, nil, cli.WithHint(cli.Usagef("diff: %s: no path can follow IMAGE:/PATH", args[2]), hint)
	}
	return sides, args[2:], nil
}

// pair opens the images of two arguments. If whole images are compared, and have the same
// layers, they are not opened: then they are the same.
func (t *trees) pair(ctx context.Context, sides [2]fileArgument, whole bool) (images [2]*image.Image, same bool, err error) {
	var found [2]*image.Resolved
	defer func() {
		for _, r := range found {
			if r != nil {
				r.Close()
			}
		}
	}()
	for i, a := range sides {
		if found[i], err = t.resolve(ctx, a); err != nil {
			return images, false, err
		}
	}
	if whole && slices.Equal(layerDigests(found[0]), layerDigests(found[1])) {
		return images, true, nil
	}
	for i, a := range sides {
		if images[i] = t.open[a.image]; images[i] != nil {
			continue
		}
		r := found[i]
		found[i] = nil // merge closes it
		if images[i], err = t.merge(ctx, a, r); err != nil {
			return images, false, err
		}
	}
	return images, false, nil
}

func layerDigests(r *image.Resolved) []digest.Digest {
	var all []digest.Digest
	for _, l := range r.Layers {
		all = append(all, l.Digest())
	}
	return all
}

// A difference is a diff of two images that are open.
type difference struct {
	env     *env
	options *diffOptions
	sides   [2]fileArgument
	images  [2]*image.Image
	same    bool // they are, and were not opened
}

// print prints what the images differ in, at paths. Its error says so, too.
func (d *difference) print(ctx context.Context, paths []string) error {
	var starts []start
	failed := false
	switch {
	case d.same:
	case d.sides[0].joined:
		paths = []string{d.sides[0].path}
		fallthrough
	default:
		if len(paths) == 0 {
			paths = []string{"/"}
		}
		for _, p := range paths {
			other := p
			if d.sides[1].joined {
				other = d.sides[1].path
			}
			s, err := d.start(p, other)
			if err != nil {
				d.env.Error(err)
				failed = true
				continue
			}
			starts = append(starts, s...)
		}
	}
	r := diff.NewReporter(d.config(ctx))
	compare := d.options.compare
	compare.SameOffsets = d.sameOffsets()
	for _, s := range disjoint(starts) {
		if err := r.Report(ctx, treediff.Compare(ctx, s.a, s.b, &compare), s.old, s.new); err != nil {
			return err
		}
	}
	if err := r.Close(); err != nil {
		return err
	}
	switch {
	case failed || r.Incomplete():
		return &cli.ExitError{}
	case r.Differs():
		return &cli.ExitError{Code: exitDifferent}
	}
	return nil
}

// config returns how changes are printed.
func (d *difference) config(ctx context.Context) diff.Config {
	o := d.options
	_, terminal := cli.Terminal(d.env.Raw)
	c := diff.Config{
		Terminal: terminal, Width: d.env.tableWidth(), Null: o.null, Depth: o.stat.depth, Exact: o.exact,
		Color:    o.color == "always" || o.color == "auto" && terminal && os.Getenv("NO_COLOR") == "",
		TextSize: cmp.Or(o.textSize.Bytes, 8<<20), Output: cli.NewWriter(ctx, d.env.Raw), Failed: d.env.Error,
	}
	switch {
	case o.json:
		c.Form = diff.JSON
	case o.stat.given:
		c.Form = diff.Stat
	case o.unified:
		c.Form = diff.Unified
	case o.names:
		c.Form = diff.Names
	}
	return c
}

// A start is a pair of files that is compared with all below; one of them can be none.
type start struct {
	old, new string // their paths
	a, b     fs.Node
}

// start returns what is compared for a path in the first image and one in the second. A
// symlink that both have is compared as such, and if it leads on alike, what is there, too.
func (d *difference) start(old, new string) ([]start, error) {
	a, errA := d.images[0].Tree().Lookup(old, false)
	b, errB := d.images[1].Tree().Lookup(new, false)
	for i, err := range []error{errA, errB} {
		if err != nil && (!isMissing(err) || errA != nil && errB != nil) {
			side := d.sides[i]
			if !side.joined {
				side.typed = old
			}
			return nil, side.failed(d.images[i], err)
		}
	}
	s := start{old: path.Clean("/" + old), new: path.Clean("/" + new), a: a, b: b}
	if errA != nil || errB != nil || !isLink(a) || !isLink(b) || a.Target() != b.Target() {
		return []start{s}, nil
	}
	followed := s
	followed.a, errA = d.images[0].Tree().Lookup(old, true)
	followed.b, errB = d.images[1].Tree().Lookup(new, true)
	if errA != nil || errB != nil {
		return []start{s}, nil
	}
	return []start{followed}, nil
}

func isLink(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFLNK }

// isMissing reports whether an error of Tree.Lookup says that there is no such file.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// disjoint returns starts sorted by path, without those below others.
func disjoint(starts []start) []start {
	slices.SortStableFunc(starts, func(s, t start) int { return strings.Compare(s.new, t.new) })
	var kept []start
	for _, s := range starts {
		if !slices.ContainsFunc(kept, func(above start) bool {
			return above.new == s.new || strings.HasPrefix(s.new, strings.TrimSuffix(above.new, "/")+"/")
		}) {
			kept = append(kept, s)
		}
	}
	return kept
}

// sameOffsets returns the function for treediff.Options: it compares in what space the
// indexes of a layer that both images have count.
func (d *difference) sameOffsets() func(digest.Digest) bool {
	if d.same {
		return nil
	}
	var spaces [2]map[digest.Digest]layerindex.Space
	for i, img := range d.images {
		spaces[i] = make(map[digest.Digest]layerindex.Space)
		for _, l := range img.Layers() {
			spaces[i][l.Digest()] = l.Index.Space()
		}
	}
	return func(layer digest.Digest) bool { return spaces[0][layer] == spaces[1][layer] }
}
