package main

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// catFlags are flags of cat(1) that change what it prints, and what to type for them.
var catFlags = func() map[string]string {
	hints := make(map[string]string)
	for flag, letter := range map[string]string{"-n": "-n", "-b": "-b", "-A": "-A", "-E": "-E", "-T": "-T", "-s": "-s", "-e": "-e", "-t": "-t",
		"--number": "-n", "--number-nonblank": "-b", "--show-all": "-A", "--show-ends": "-E", "--show-tabs": "-T",
		"--squeeze-blank": "-s", "--show-nonprinting": "-v"} {
		hints[flag] = "imgfs cat IMAGE PATH | cat " + letter
	}
	return hints
}()

func catCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "cat",
		Usage: "IMAGE PATH... | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE PATH...", Text: "print files of the image; also: sum"},
		About: `Prints files of the image one after the other. Symlinks are followed within the
image.`,
		OtherFlags: catFlags,
		Example:    "imgfs cat fedora:latest /etc/os-release",
		Setup: func(f *pflag.FlagSet) cli.Action {
			flags := newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				return cat(ctx, e, flags, args)
			}
		},
	}
}

func cat(ctx context.Context, e *env, flags *treeFlags, args []string) error {
	var files []fileArgument
	if len(args) > 0 {
		var err error
		if files, err = fileArguments("cat", args); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(files, func(a fileArgument) bool { return a.typed == "-" }) {
		return cli.WithHint(cli.Usagef("cat: - is standard input, which is no file of an image"), "a file of that name is ./-")
	}
	if len(files) == 0 {
		if len(args) > 0 {
			if meant := missingColon(ctx, args[0]); meant != "" {
				return cli.WithHint(cli.Usagef("cat: no path in the image %s", args[0]), meantFile("cat", meant))
			}
		}
		return cli.Usagef("cat: an image and at least one path are needed")
	}
	t, err := e.openTrees("cat", flags)
	if err != nil {
		return err
	}
	defer t.close()
	w := cli.NewWriter(ctx, e.Raw)
	return t.each(ctx, files, func(a fileArgument, img *image.Image) error {
		return catFile(ctx, w, img.Tree(), a.path)
	})
}

// catFile writes the content of a file to w.
func catFile(ctx context.Context, w io.Writer, t *fs.Tree, name string) error {
	n, err := t.Lookup(name, true)
	if err != nil {
		return err
	}
	switch n.Mode() & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return unix.EISDIR
	default:
		return errors.New("not a regular file")
	}
	buf := make([]byte, 1+min(n.Attr().Size, 1<<20))
	for off := int64(0); ; {
		k, err := n.ReadAt(ctx, buf, off)
		if _, werr := w.Write(buf[:k]); werr != nil {
			return werr
		}
		off += int64(k)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
