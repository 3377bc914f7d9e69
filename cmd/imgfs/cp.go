package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/treecopy"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// cpFlags are flags of cp(1) and docker cp that are not here, and what to type for them.
var cpFlags = map[string]string{
	"-i": "-n, which replaces nothing", "--interactive": "-n, which replaces nothing", "-u": "-n, which replaces nothing", "--update": "-n, which replaces nothing",
	"-d": "-P", "--preserve": "-p, or -a", "--no-preserve": "leave out -p and -a", "--follow-link": "-L",
	"-x": "leave it out: an image is one file system", "--one-file-system": "leave it out: an image is one file system",
	"--sparse": "leave it out: holes stay holes", "--reflink": "leave it out: no block of an image is on this disk", "-l": "-a, which keeps hard links", "-s": "imgfs mount IMAGE DIR, and links into it",
	"-b": "-n, which replaces nothing", "--backup": "-n, which replaces nothing", "--parents": "imgfs tar IMAGE PATH | tar -xC DIR", "--remove-destination": "-f",
}

// cpOptions are the flags of cp.
type cpOptions struct {
	archive, preserve             bool
	followAll, followNone, follow bool // -L, -P, -H
	keep, force, recursive, r     bool
	into                          pathFlag
	noDirectory                   bool
}

func cpCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "cp",
		Usage: "[FLAGS] IMAGE PATH... DEST | IMAGE:/PATH... DEST",
		Entry: cli.Entry{Usage: "IMAGE PATH... DEST", Text: "copy files of the image into a directory"},
		About: `Copies files and directories of the image to DEST: into a directory that is
there, else to that name. DEST - is stdout, for one file. PATH/. and / are what
is in a directory. Directories need no -r. A symlink among PATHs is followed,
one below them is copied as it is.

Without -a or -p files are this user's, with permissions that the umask leaves,
and devices are not copied. A file is there when it is whole, and replaces what
was there; nothing is written through a symlink.`,
		OtherFlags: cpFlags,
		Example:    "imgfs cp -a fedora:latest /etc .",
		Setup: func(f *pflag.FlagSet) cli.Action {
			var o cpOptions
			f.BoolVarP(&o.archive, "archive", "a", false, "keep owners, modes, times, links, devices, xattrs")
			f.BoolVarP(&o.preserve, "attributes", "p", false, "keep owners, modes and times")
			f.BoolVarP(&o.followAll, "dereference", "L", false, "follow all symlinks, within the image")
			f.BoolVarP(&o.followNone, "no-dereference", "P", false, "follow none, as with -a")
			f.BoolVarP(&o.follow, "follow-arguments", "H", false, "follow those among PATHs, as without -a")
			f.BoolVarP(&o.keep, "no-clobber", "n", false, "leave files that are there as they are")
			f.VarP(&o.into, "target-directory", "t", "`DIR` copy into DIR; all arguments are of images")
			f.BoolVarP(&o.noDirectory, "no-target-directory", "T", false, "DEST is the copy, even if it is a directory")
			// What cp needs for a directory, and for a file that it cannot open.
			f.BoolVarP(&o.recursive, "recursive", "r", false, "")
			f.BoolVarP(&o.r, "R", "R", false, "")
			f.BoolVarP(&o.force, "force", "f", false, "")
			for _, name := range []string{"recursive", "R", "force"} {
				f.Lookup(name).Hidden, f.Lookup(name).Annotations = true, map[string][]string{cli.Known: nil}
			}
			flags := newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				return copyFiles(ctx, e, flags, &o, args)
			}
		},
	}
}

// copyFiles does what the command line says.
func copyFiles(ctx context.Context, e *env, flags *treeFlags, o *cpOptions, args []string) error {
	files, dest, err := o.arguments(ctx, args)
	if err != nil {
		return err
	}
	if dest == "-" {
		return copyToStdout(ctx, e, flags, o, files)
	}
	d, err := findDestination(dest, o, len(files))
	if err != nil {
		return err
	}
	defer d.close()
	t, err := e.openTrees("cp", flags)
	if err != nil {
		return err
	}
	defer t.close()
	c := &copying{env: e, ctx: ctx, dest: d, opts: o, bar: show.NewBar(e, "copying")}
	defer c.bar.Finish()
	c.copier = treecopy.New(&treecopy.Options{
		Attributes: o.archive || o.preserve, Xattrs: o.archive, HardLinks: o.archive, Devices: o.archive,
		Dereference: o.followAll, KeepExisting: o.keep, Umask: e.umask,
		Progress: c.progress, Failed: c.report,
	})
	err = t.each(ctx, files, c.copy)
	switch {
	case c.fatal != nil:
		return c.fatal
	case err == nil && c.failed:
		return &cli.ExitError{}
	}
	return err
}

// arguments tells the files from the destination.
func (o *cpOptions) arguments(ctx context.Context, args []string) (files []fileArgument, dest string, err error) {
	if len(args) == 0 {
		return nil, "", cli.Usagef("cp: no image named")
	}
	sources := args
	if o.into == "" {
		sources, dest = args[:len(args)-1], expandHome(args[len(args)-1])
	} else if dest = o.into.String(); o.noDirectory {
		return nil, "", cli.Usagef("cp: -t and -T contradict each other")
	}
	_, _, joined := remote.CutPath(args[0])
	if _, _, to := remote.CutPath(dest); to && !joined && o.into == "" {
		return nil, "", cli.Usagef("cp: %s: imgfs only reads images, and copies nothing into them", dest)
	}
	if len(sources) == 0 {
		err := cli.Usagef("cp: no destination behind %s", args[0])
		if joined {
			return nil, "", cli.WithHint(err, "imgfs cp "+printable.Word(args[0])+" . for this directory")
		}
		return nil, "", err
	}
	if files, err = fileArguments("cp", sources); err != nil {
		return nil, "", err
	}
	if len(files) > 0 {
		return files, dest, nil
	}
	if meant := missingColon(ctx, sources[0]); meant != "" {
		return nil, "", cli.WithHint(cli.Usagef("cp: no path in the image %s", sources[0]), meantFile("cp", meant+" "+dest))
	}
	return nil, "", cli.WithHint(cli.Usagef("cp: no path in the image %s, or no destination", sources[0]),
		fmt.Sprintf("imgfs cp %s %s . for this directory; %s is all of the image", printable.Word(sources[0]), printable.Word(dest), printable.Word(sources[0]+":/")))
}

// followArguments reports whether symlinks among the arguments are followed.
func (o *cpOptions) followArguments() bool {
	return o.followAll || o.follow || !o.followNone && !o.archive
}

// copyToStdout prints one file.
func copyToStdout(ctx context.Context, e *env, flags *treeFlags, o *cpOptions, files []fileArgument) error {
	if len(files) > 1 {
		return cli.WithHint(cli.Usagef("cp: stdout takes one file, and not %d", len(files)), "imgfs cat prints several, imgfs tar makes one archive")
	}
	t, err := e.openTrees("cp", flags)
	if err != nil {
		return err
	}
	defer t.close()
	w := cli.NewWriter(ctx, e.Raw)
	return t.each(ctx, files, func(a fileArgument, img *image.Image) error {
		err := catFile(ctx, w, img.Tree(), a.path)
		if errors.Is(err, unix.EISDIR) {
			return cli.WithHint(err, "imgfs tar "+printable.Word(a.image)+" "+printable.Word(a.path)+" writes a directory to stdout")
		}
		return err
	})
}

// A copying copies files to one destination.
type copying struct {
	env    *env
	ctx    context.Context
	opts   *cpOptions
	dest   *destination
	copier *treecopy.Copier
	bar    *show.Bar

	have, all int64
	img       *image.Image // whose files are copied
	hinted    bool         // how devices are copied
	failed    bool         // something could not be copied
	fatal     error        // why nothing more is copied
}

func (c *copying) progress(n int64) {
	c.have += n
	c.bar.Update(c.have, max(c.have, c.all))
}

// report prints an error of one file, and notes that there was one.
func (c *copying) report(err error) {
	c.failed = true
	c.env.Error(c.named(err))
}

// named returns an error with what it is of: the image, if that is at fault.
func (c *copying) named(err error) error {
	var failed *treecopy.Error
	if errors.As(err, &failed) && failed.Reading {
		err = fmt.Errorf("%s: %w", c.img.Name(), err)
		if errors.Is(failed, treecopy.ErrDevice) && !c.hinted {
			c.hinted = true
			return cli.WithHint(err, "-a copies devices, too")
		}
	}
	return err
}

// copy copies what one argument names.
func (c *copying) copy(a fileArgument, img *image.Image) error {
	if c.fatal != nil {
		return nil
	}
	n, err := img.Tree().Lookup(a.path, c.opts.followArguments())
	if err != nil {
		return err
	}
	c.img = img
	c.all += c.copier.Size(n)
	err = c.dest.copy(c.ctx, c.copier, img.Tree(), a.path, n)
	if failed := (*treecopy.Error)(nil); err != nil && !errors.As(err, &failed) && c.ctx.Err() == nil {
		return err
	}
	if err != nil {
		c.fatal = c.named(err)
	}
	return nil
}

// contents reports whether a path means what is in a directory, and not the directory.
func contents(p string) bool {
	base := path.Base(p)
	return base == "/" || base == "." || base == ".." || strings.HasSuffix(p, "/.")
}

// isDir reports whether a node is a directory.
func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }
