package main

import (
	"context"
	"errors"
	"io"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func catCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "cat",
		Usage: "IMAGE PATH... | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE PATH...", Text: "print files of the image"},
		About: `Prints files of the image one after the other. Symlinks are followed within the
image.`,
		Example: "imgfs cat fedora:latest /etc/os-release",
		Setup: func(*pflag.FlagSet) cli.Action {
			return func(ctx context.Context, args []string) error {
				return cat(ctx, e, args)
			}
		},
	}
}

func cat(ctx context.Context, e *env, args []string) error {
	var files []fileArgument
	if len(args) > 0 {
		var err error
		if files, err = fileArguments("cat", args); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return cli.Usagef("cat: an image and at least one path are needed")
	}
	t, err := e.openTrees("cat")
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
