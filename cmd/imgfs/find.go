package main

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	finder "github.com/imgfs/imgfs/cmd/imgfs/internal/find"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

// findFlags are what only find has.
type findFlags struct {
	*treeFlags
	json bool
}

func findCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "find",
		Usage: "[-H|-L] IMAGE [PATH...] [TEST...] | IMAGE:/PATH... [TEST...]",
		Entry: cli.Entry{Usage: "IMAGE [TEST]", Text: "search for files, as find(1) does; also: tree"},
		About: `Prints files of the image for which an expression of find(1) is true:

  -name -iname -path -ipath PATTERN   -regex -iregex RE   -lname PATTERN
  -type f,d,l,c,b,p,s  -xtype  -size [+-]N[cwbkMG]  -empty  -perm [-/]MODE
  -user -group NAME  -uid -gid -links -inum [+-]N  -nouser -nogroup
  -newer FILE  -newermt DATE  -mtime [+-]DAYS  -mmin  -daystart  -samefile FILE
  -maxdepth N  -mindepth N  -depth  -prune  -quit  -executable  -true  -false
  ( )  ! -not  -a  -o  ,    -print  -print0  -ls  -printf FORMAT`,
		Notes: `Flags have two hyphens, and may stand anywhere. Files come in byte order, and
names of owners are the image's. There is no -exec: paths go to xargs.`,
		Example: "imgfs find fedora:latest:/etc -name 'os-*' -print0 | xargs -0 imgfs cat",
		Raw:     finder.Split,
		Setup: func(f *pflag.FlagSet) cli.Action {
			flags := findFlags{treeFlags: newTreeFlags(f)}
			f.BoolVar(&flags.json, "json", false, "print the files as JSON")
			return func(ctx context.Context, args []string) error {
				return findFiles(ctx, e, &flags, args)
			}
		},
	}
}

func findFiles(ctx context.Context, e *env, flags *findFlags, args []string) error {
	paths, expression := finder.Cut(args)
	if len(paths) == 0 {
		return cli.Usagef("find: no image named")
	}
	wanted, err := finder.Parse(expression, time.Now())
	if err != nil {
		return err
	}
	if action := wanted.Formats(); flags.json && action != "" {
		return cli.Usagef("find: --json prints files in its own way, and %s in another", action)
	}
	named, err := fileArguments("find", paths)
	if err != nil {
		return err
	}
	if len(named) == 0 {
		named = []fileArgument{{typed: "/", image: paths[0], path: "/"}}
	}
	t, err := e.openTrees("find", flags.treeFlags)
	if err != nil {
		return err
	}
	defer t.close()
	_, terminal := cli.Terminal(e.Raw)
	w := wanted.NewWalker(ctx, finder.Config{Output: cli.NewWriter(ctx, e.Raw), Terminal: terminal, JSON: flags.json, Warnf: e.Warnf, Failed: e.Error})
	images := make(map[*image.Image]*ls.Image)
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		if images[img] == nil {
			images[img] = &ls.Image{Name: img.Name(), Tree: img.Tree()}
		}
		start := finder.Start{Typed: a.typed, Path: a.path, Image: images[img]}
		if named[0].joined { // what is printed is an argument again
			start.Prefix, start.Typed = a.image+":", a.path
		}
		return w.Walk(start)
	})
	whole, err := w.Close()
	if err == nil && !whole {
		err = &cli.ExitError{}
	}
	if err == nil {
		err = missing
	}
	return err
}
