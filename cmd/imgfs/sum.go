package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/sum"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

func sumCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "sum",
		Usage:    "[FLAGS] IMAGE PATH... | IMAGE:/PATH... | -c FILE IMAGE [DIR]",
		Entry:    cli.Entry{Usage: "IMAGE PATH...", Text: "print the SHA-256 of files of the image"},
		Unlisted: true,
		About: `Prints the SHA-256 of files as sha256sum does. What the indexes of the layers
know is not read: nothing is fetched for it. With -c, FILE is what this or
sha256sum has printed; its names begin in DIR, or in the root.`,
		Notes:   `Also -b -t and -a sha256. Exit code 1: a file could not be read, or differs.`,
		Example: "imgfs sum -r fedora:latest /etc",
		Setup: func(f *pflag.FlagSet) cli.Action {
			opts, flags := sum.NewOptions(f), newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("sum: no image named")
				}
				if err := opts.Check(); err != nil {
					return err
				}
				return sumFiles(ctx, e, opts, flags, args)
			}
		},
	}
}

// sumFiles prints or checks the sums of the files that arguments name.
func sumFiles(ctx context.Context, e *env, opts *sum.Options, flags *treeFlags, args []string) error {
	named, err := fileArguments("sum", args)
	switch {
	case err != nil:
		return err
	case slices.ContainsFunc(named, func(a fileArgument) bool { return a.typed == "-" }):
		return cli.WithHint(cli.Usagef("sum: - is standard input, which is no file of an image"), "a file of that name is ./-")
	case len(named) == 0 && !opts.Recursive && opts.List == "":
		return cli.Usagef("sum: no path in the image; -r takes all of it")
	case len(named) == 0:
		named = []fileArgument{{typed: "/", image: args[0], path: "/"}}
	case len(named) > 1 && opts.List != "":
		return cli.Usagef("sum: -c takes one image, and one directory in it at most")
	}
	list := io.Reader(os.Stdin)
	if opts.List != "" && opts.List != "-" {
		f, err := openLocal(ctx, opts.List)
		if err != nil {
			return err
		}
		defer f.Close()
		list = f
	}
	t, err := e.openTrees("sum", flags)
	if err != nil {
		return err
	}
	defer t.close()
	config := sum.Config{Output: cli.NewWriter(ctx, e.Raw), Quiet: e.Quiet, Warnf: e.Warnf, Failed: e.Error}
	_, config.Terminal = cli.Terminal(e.Raw)
	s := opts.NewSummer(ctx, config)
	images := make(listedImages)
	var unchecked error // about the list, and no file of the image
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		if opts.List != "" {
			unchecked = s.Check(opts.List, list, images.of(a, img), a.path)
			return nil
		}
		return s.Add(entry.Argument{Typed: a.typed, Path: a.path, Image: images.of(a, img)})
	})
	if err := finishFiles(ctx, s, missing); err != nil || unchecked == nil {
		return err
	}
	return unchecked
}

// openLocal opens a file of this machine, which a flag names. A pipe is waited for until
// ctx ends, as is what comes out of it.
func openLocal(ctx context.Context, name string) (*os.File, error) {
	f, err := openWaiting(ctx, expandHome(name), os.O_RDONLY)
	var failed *os.PathError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s: %w", name, failed.Err)
	}
	return f, err
}

// finishFiles ends what a command prints about files. missing is the error of arguments.
func finishFiles(ctx context.Context, f interface{ Finish() (bool, error) }, missing error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	whole, err := f.Finish()
	if err == nil && !whole {
		err = &cli.ExitError{}
	}
	if err == nil {
		err = missing
	}
	return err
}
