package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/treetar"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// tarFlags are flags of tar(1) and of commands that export, and what to type for them.
var tarFlags = map[string]string{
	"-f": "-o {FILE}", "--file": "-o {FILE}", "-c": "leave it out: imgfs tar only writes tars", "--create": "leave it out: imgfs tar only writes tars",
	"-x": "imgfs cp -a IMAGE:/ DIR, or imgfs tar IMAGE | tar -x", "--extract": "imgfs cp -a IMAGE:/ DIR, or imgfs tar IMAGE | tar -x",
	"-t": "imgfs ls -lR IMAGE", "--list": "imgfs ls -lR IMAGE", "-C": "imgfs tar IMAGE PATH, whose names begin at the root", "--directory": "imgfs tar IMAGE PATH, whose names begin at the root",
	"-z": "imgfs tar IMAGE | gzip", "--gzip": "imgfs tar IMAGE | gzip", "-J": "imgfs tar IMAGE | xz", "--xz": "imgfs tar IMAGE | xz",
	"--zstd": "imgfs tar IMAGE | zstd", "-j": "imgfs tar IMAGE | bzip2", "--bzip2": "imgfs tar IMAGE | bzip2", "-p": "leave it out: all modes are in the tar",
}

func tarCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "tar",
		Usage: "[FLAGS] IMAGE [PATH...] | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE [PATH...]", Text: "write files of the image as a tar"},
		About: `Writes the tree of the image as one tar to stdout, as docker export does: all
layers merged, names such as etc/passwd, and no member for the root itself. With
PATHs only what is there and below; PATH / is all, and the root as ./ too.

The same image gives the same bytes on every machine. Owners are numbers; hard
links, devices, holes, extended attributes and times to the nanosecond are kept.
GNU tar, bsdtar, docker import and podman import read it; so does imgfs.`,
		Notes: `A tar that could not be written to its end breaks off within a member, so that
no program takes it for a whole one, and the exit code is 1.`,
		OtherFlags: tarFlags,
		Example:    "imgfs tar fedora:latest etc | tar -t",
		Setup: func(f *pflag.FlagSet) cli.Action {
			var output pathFlag
			f.VarP(&output, "output", "o", "`FILE` write FILE, which is there when it is whole")
			flags := newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				return writeTar(ctx, e, flags, output, args)
			}
		},
	}
}

func writeTar(ctx context.Context, e *env, flags *treeFlags, output pathFlag, args []string) error {
	if len(args) == 0 {
		return cli.Usagef("tar: no image named")
	}
	named, err := fileArguments("tar", args)
	if err != nil {
		return err
	}
	source := fileArgument{typed: args[0], image: args[0], path: "/"}
	var paths []string
	for _, a := range named {
		if a.image != named[0].image {
			return cli.Usagef("tar: %s is of another image than %s: a tar has the files of one", a.typed, named[0].typed)
		}
		paths = append(paths, a.path)
		source.image, source.joined = a.image, a.joined
	}
	if _, terminal := cli.Terminal(e.Raw); terminal && output == "" {
		return cli.WithHint(cli.Usagef("tar: stdout is a terminal, and a tar is nothing to read there"),
			"imgfs tar "+printable.Word(args[0])+" > FILE.tar, or -o FILE.tar")
	}
	t, err := e.openTrees("tar", flags)
	if err != nil {
		return err
	}
	defer t.close()
	img, err := t.tree(ctx, source)
	if err != nil {
		return swapped("tar", append(named, source), err)
	}
	missing := t.each(ctx, named, func(a fileArgument, img *image.Image) error {
		_, err := img.Tree().Lookup(a.path, false)
		return err
	})
	if missing != nil {
		return missing
	}
	if output == "" || output == "-" {
		return outputError("stdout", img, tarOut(ctx, e, img, paths, cli.NewWriter(ctx, e.Raw)))
	}
	return outputError(output.String(), img, replaceFile(ctx, output.String(), e.umask, func(w io.Writer) error {
		return tarOut(ctx, e, img, paths, w)
	}))
}

// tarOut writes the tar of an image's paths to w.
func tarOut(ctx context.Context, e *env, img *image.Image, paths []string, w io.Writer) error {
	all, err := treetar.Size(img.Tree(), paths)
	if err != nil {
		return err
	}
	bar := show.NewBar(e, "writing")
	defer bar.Finish()
	var have int64
	out := bufio.NewWriterSize(w, 1<<20)
	err = treetar.Write(ctx, out, img.Tree(), paths, &treetar.Options{Progress: func(n int64) {
		have += n
		bar.Update(have, all)
	}})
	// What comes before an error goes out, too: it shows that the tar is not whole.
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	return err
}

// outputError says of an error of writing a tar what is at fault: the image, or where
// the tar goes.
func outputError(name string, img *image.Image, err error) error {
	var read *treetar.Error
	var failed *iofs.PathError
	switch {
	case err == nil, errors.Is(err, context.Canceled), cli.IsUsage(err):
		return err
	case errors.As(err, &read):
		return fmt.Errorf("%s: %w; the tar is not whole", img.Name(), read)
	case errors.As(err, &failed):
		err = failed.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}
