package main

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/grep"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

func grepCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "grep",
		Usage: "[FLAGS] PATTERN IMAGE PATH... | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "PATTERN IMAGE...", Text: "print lines of files of the image that match"},
		About: `Prints lines of files that match, as GNU grep -E does. PATTERN is RE2's; -e and
-f FILE give several. Exit code 1: no line matched; 2: something failed.`,
		Notes: `Also -a -h -m N -A N -B N -C N -x -I -H -s -Z --include, --exclude and
--exclude-dir PATTERN, --color[=WHEN], as in GNU grep.`,
		Example: "imgfs grep -rn NAME fedora:latest /etc",
		Failure: 2,
		Setup: func(f *pflag.FlagSet) cli.Action {
			opts, flags := grep.NewOptions(f), newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				opts.Quiet = opts.Quiet || cli.IsGiven(f.Lookup("quiet"))
				if err := opts.Check(); err != nil {
					return err
				}
				return grepFiles(ctx, e, opts, flags, args)
			}
		},
	}
}

// grepFiles prints lines of the files that arguments name, behind a pattern if no flag
// gives one.
func grepFiles(ctx context.Context, e *env, opts *grep.Options, flags *treeFlags, args []string) error {
	patterns, err := patternsOf(ctx, opts)
	if err != nil {
		return err
	}
	if opts.Patterns == nil && opts.Files == nil {
		if len(args) == 0 {
			return cli.Usagef("grep: no pattern")
		}
		patterns, args = args[:1], args[1:]
	}
	if len(args) == 0 {
		return cli.Usagef("grep: no image named")
	}
	named, err := fileArguments("grep", args)
	switch {
	case err != nil:
		return err
	case slices.ContainsFunc(named, func(a fileArgument) bool { return a.typed == "-" }):
		return cli.WithHint(cli.Usagef("grep: - is standard input, which is no file of an image"), "a file of that name is ./-")
	case len(named) == 0 && !opts.Recursive:
		return cli.Usagef("grep: no path in the image; -r searches all of it")
	case len(named) == 0:
		named = []fileArgument{{typed: "/", image: args[0], path: "/"}}
	}
	config := grep.Config{Output: cli.NewWriter(ctx, e.Raw), Arguments: len(named), Message: e.Message, Failed: e.Error}
	_, config.Terminal = cli.Terminal(e.Raw)
	g, err := opts.NewGrepper(ctx, patterns, config)
	if err != nil {
		return err
	}
	t, err := e.openTrees("grep", flags)
	if err != nil {
		return err
	}
	defer t.close()
	images := make(listedImages)
	unnamed := false // something has failed, which -s keeps quiet about
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		err := g.Add(entry.Argument{Typed: a.typed, Path: a.path, Image: images.of(a, img)})
		if err != nil && opts.NoMessages {
			unnamed, err = true, nil
		}
		return err
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	selected, whole, err := g.Finish()
	switch {
	case err != nil:
		return err
	case selected && opts.Quiet:
		return nil
	case missing != nil || unnamed || !whole:
		return &cli.ExitError{}
	case !selected:
		return &cli.ExitError{Code: 1}
	}
	return nil
}

// patternsOf returns the patterns that flags give.
func patternsOf(ctx context.Context, opts *grep.Options) ([]string, error) {
	patterns := slices.Clone(opts.Patterns)
	for _, name := range opts.Files {
		var text []byte
		var err error
		if name == "-" {
			text, err = io.ReadAll(os.Stdin)
		} else {
			text, err = readLocal(ctx, name)
		}
		if err != nil {
			return nil, err
		}
		if len(text) > 0 { // no line is no pattern, and an empty line is one
			patterns = append(patterns, strings.TrimSuffix(string(text), "\n"))
		}
	}
	return patterns, nil
}

// readLocal reads a file of this machine, which a flag names.
func readLocal(ctx context.Context, name string) ([]byte, error) {
	f, err := openLocal(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return text, err
}
