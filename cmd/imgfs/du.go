package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/du"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

func duCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "du",
		Usage: "[FLAGS] IMAGE [PATH...] | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE [PATH...]", Text: "add up the sizes of files of the image"},
		About: `Adds up what the files of directories take, as GNU du does; without PATH of the
whole image. Hard links count once.`,
		Notes:   `Also -k -m -B SIZE -S -l -L -D -H -P -x -0 and --apparent-size, as in GNU du.`,
		Example: "imgfs du -h -d 1 fedora:latest /etc",
		Setup: func(f *pflag.FlagSet) cli.Action {
			opts, flags := du.NewOptions(f), newTreeFlags(f)
			layers := f.Bool("layers", false, "what each layer adds, replaces, hides; useless bytes")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("du: no image named")
				}
				if *layers {
					return layersUsage(ctx, e, flags, args, f.Changed("bytes"), opts.JSON)
				}
				if err := opts.Check(); err != nil {
					return err
				}
				return countUsage(ctx, e, opts, flags, args)
			}
		},
	}
}

// countUsage prints what the files that arguments name take.
func countUsage(ctx context.Context, e *env, opts *du.Options, flags *treeFlags, args []string) error {
	named, err := fileArguments("du", args)
	if err != nil {
		return err
	}
	if len(named) == 0 {
		named = []fileArgument{{typed: "/", image: args[0], path: "/"}}
	}
	t, err := e.openTrees("du", flags)
	if err != nil {
		return err
	}
	defer t.close()
	config := du.Config{Output: cli.NewWriter(ctx, e.Raw), Arguments: len(named), Failed: e.Error}
	_, config.Terminal = cli.Terminal(e.Raw)
	counter := opts.NewCounter(ctx, config)
	images := make(map[*image.Image]*du.Image)
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		if images[img] == nil {
			images[img] = &du.Image{Name: a.image, Title: img.Name(), Tree: img.Tree()}
		}
		return counter.Add(du.Argument{Typed: a.typed, Path: a.path, Image: images[img]})
	})
	return finishFiles(ctx, counter, missing)
}
