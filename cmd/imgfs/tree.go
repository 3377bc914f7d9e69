package main

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/tree"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

// treeHints are flags of tree(1) that there are not, and what to type for them.
var treeHints = map[string]string{
	"-J": "--json, which has all of a file's attributes", "-X": "--json", "-H": "--json", "-T": "--json", "-o": "imgfs tree IMAGE > FILE", "-C": "leave it out: trees have no colours",
	"-l": "leave it out: symlinks are not followed", "-R": "-L N", "-A": "--charset UTF-8, or --charset ASCII", "-S": "--charset UTF-8, or --charset ASCII",
	"--du-all": "--du", "--device": "leave it out: an image is one file system", "--fromfile": "leave it out: files are those of an image",
	"--gitignore": "-I PATTERN", "--gitfile": "-I PATTERN", "--matchdirs": "imgfs find IMAGE -name PATTERN", "--filelimit": "-L N",
}

func treeCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "tree",
		Usage:    "[FLAGS] IMAGE [DIR...] | IMAGE:/DIR...",
		Entry:    cli.Entry{Usage: "IMAGE [DIR...]", Text: "draw the tree of directories of the image"},
		Unlisted: true,
		About: `Draws directories of the image, without DIR all. The flags are those of tree(1):

  -a -d            names that begin with a dot, too; directories alone
  -L LEVELS        no deeper than that
  -P -I PATTERN    only files that match, or those that do not: '*.c|*.h'
  -p -u -g -s -D   modes, users, groups, sizes, dates (--timefmt=FORMAT)
  -h --si --du     sizes as 1.5K; in powers of 1000; of all in directories
  -t -r -U         by time, reversed, not sorted; --sort=name,size,mtime
  -f -i -F -Q -N   full paths; no lines; /=*| behind names; quoted; as they are
  also --prune --ignore-case --dirsfirst --filesfirst --inodes
  and --noreport --charset=NAME`,
		Notes:      "Lines are drawn in UTF-8 if the locale has it.",
		OtherFlags: treeHints,
		Example:    "imgfs tree -L 2 -h fedora:latest /etc",
		Setup: func(f *pflag.FlagSet) cli.Action {
			opts, flags := tree.NewOptions(f), newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("tree: no image named")
				}
				return drawTree(ctx, e, opts, flags, args)
			}
		},
	}
}

func drawTree(ctx context.Context, e *env, opts *tree.Options, flags *treeFlags, args []string) error {
	named, err := fileArguments("tree", args)
	if err != nil {
		return err
	}
	if len(named) == 0 {
		named = []fileArgument{{typed: "/", image: args[0], path: "/"}}
	}
	t, err := e.openTrees("tree", flags)
	if err != nil {
		return err
	}
	defer t.close()
	config := tree.Config{Output: cli.NewWriter(ctx, e.Raw), Now: time.Now(), Warnf: e.Warnf}
	_, config.Terminal = cli.Terminal(e.Raw)
	p := opts.NewPrinter(ctx, config)
	images := make(map[*image.Image]*ls.Image)
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		if images[img] == nil {
			images[img] = &ls.Image{Name: img.Name(), Tree: img.Tree()}
		}
		root := tree.Root{Typed: a.typed, Path: a.path, Image: images[img]}
		if named[0].joined { // what is printed is an argument again
			root.Typed = a.image + ":" + a.path
		}
		return p.Print(root)
	})
	if err := p.Close(); err != nil {
		return err
	}
	return missing
}
