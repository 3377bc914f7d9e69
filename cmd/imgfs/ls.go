package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

func lsCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "ls",
		Usage: "[FLAGS] IMAGE [PATH...] | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE [PATH...]", Text: "list files of the image"},
		About: `Lists files of the image, without PATH its root. The flags are those of GNU ls:

  -a -A -B            names that begin with a dot, too; but . and ..; no names~
  -I --hide=PATTERN   leave out names (--hide: unless -a or -A is given)
  -d -R -L -H         directories as such; those below; follow symlinks; PATHs
  -l -n -g -o -G      long; owners as numbers; no owner; no group (-G: with -l)
  -h --si -s -i       sizes as 1.5M; in powers of 1000; blocks; inode numbers
  -t -S -X -U -f      sort by time, size, extension; not at all; -f: -aU
  -r --sort=WORD      reversed; size, time, extension, version, width, none
  -1 -C -x -m         one name a line; columns; across; commas (--format=WORD)
  -F -p --file-type   add one of */=@|; / alone; no * (--indicator-style=WORD)
  -N -Q -b            names unquoted, or quoted as in C (--quoting-style=WORD)
  also --color[=WHEN] --group-directories-first --full-time --time-style=STYLE
  -c -u --time=WORD -k --block-size=SIZE -w COLUMNS -T COLUMNS --zero --json`,
		Notes:   `Also --layers: each file's layer. On a terminal a name that could act is quoted.`,
		Example: "imgfs ls -lh fedora:latest /etc/os-release",
		Setup: func(f *pflag.FlagSet) cli.Action {
			opts, flags := ls.NewOptions(f), newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("ls: no image named")
				}
				return list(ctx, e, opts, flags, args)
			}
		},
	}
}

func list(ctx context.Context, e *env, opts *ls.Options, flags *treeFlags, args []string) error {
	named, err := fileArguments("ls", args)
	if err != nil {
		return err
	}
	if len(named) == 0 {
		named = []fileArgument{{typed: "/", image: args[0], path: "/"}}
	}
	t, err := e.openTrees("ls", flags)
	if err != nil {
		return err
	}
	defer t.close()
	t.survey = opts.Layers()
	config := ls.Config{Output: cli.NewWriter(ctx, e.Raw), Warnf: e.Warnf, Failed: e.Error}
	if terminal, ok := cli.Terminal(e.Raw); ok {
		config.Terminal = terminal
	}
	l := opts.NewLister(ctx, config)
	images := make(map[*image.Image]*ls.Image)
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		if images[img] == nil {
			images[img] = &ls.Image{Name: img.Name(), Tree: img.Tree()}
			if survey := t.surveys[img]; survey != nil {
				images[img].Layer = func(n fs.Node) int { return survey.Layer(n) + 1 }
			}
		}
		return l.Add(ls.Argument{Typed: a.typed, Path: a.path, Image: images[img]})
	})
	whole, err := l.Print(len(named))
	if err == nil && !whole {
		err = &cli.ExitError{}
	}
	if err == nil {
		err = missing
	}
	return err
}
