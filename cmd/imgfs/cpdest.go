package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treecopy"
	"golang.org/x/sys/unix"
)

// A destination is where cp copies to.
type destination struct {
	typed string
	dir   *os.File
	// name is that of the copy in dir; "": the name of each source.
	name string
	// special says that what is there is neither file nor directory. It is opened for
	// the content of a file, and not before, as that may wait.
	special bool
	keep    bool // what is there
}

func (d *destination) close() {
	if d.dir != nil {
		d.dir.Close()
	}
}

// findDestination opens what the destination of so many sources means. Links in it are
// followed: the user has named it. It makes nothing.
func findDestination(typed string, o *cpOptions, sources int) (*destination, error) {
	d := &destination{typed: typed, keep: o.keep}
	st, err := os.Stat(typed)
	missing := errors.Is(err, iofs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return nil, destinationError(typed, err)
	case err == nil && st.IsDir():
		if o.noDirectory {
			d.name = "."
		}
		d.dir, err = openDirectory(typed)
		return d, err
	case o.into != "" || sources > 1 && !o.noDirectory:
		if err == nil {
			err = unix.ENOTDIR
		}
		return nil, destinationError(typed, err)
	case sources > 1:
		return nil, fmt.Errorf("%s: %d files cannot all be copied to one name", typed, sources)
	case err == nil && !st.Mode().IsRegular():
		d.special = true
		return d, nil
	}
	name := typed
	if missing {
		if _, err := os.Lstat(strings.TrimRight(typed, "/")); err == nil {
			return nil, fmt.Errorf("%s: it is a symlink to nothing", typed)
		}
	} else if name, err = filepath.EvalSymlinks(typed); err != nil {
		return nil, destinationError(typed, err)
	}
	parent := filepath.Dir(strings.TrimRight(name, "/"))
	if d.name = filepath.Base(name); d.name == ".." || typed == "" {
		return nil, destinationError(typed, unix.ENOENT)
	}
	d.dir, err = openDirectory(parent)
	return d, err
}

func openDirectory(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, destinationError(name, err)
	}
	return f, nil
}

// destinationError returns an error of a destination with its name alone.
func destinationError(name string, err error) error {
	var failed *iofs.PathError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	if name == "" {
		name = `""`
	}
	return fmt.Errorf("%s: %w", name, err)
}

// copy copies what is at a path of the image.
func (d *destination) copy(ctx context.Context, c *treecopy.Copier, t *fs.Tree, from string, n fs.Node) error {
	if d.special {
		return d.stream(ctx, t, from)
	}
	name := d.name
	switch {
	case name == "" && isDir(n) && contents(from):
		name = "."
	case name == "":
		name = path.Base(from)
	case name == "." && !isDir(n):
		return destinationError(d.typed, unix.EISDIR)
	case strings.HasSuffix(d.typed, "/") && !isDir(n):
		return destinationError(d.typed, unix.ENOTDIR)
	}
	return c.Copy(ctx, t, "/"+strings.Trim(from, "/"), n, d.dir, name)
}

// stream writes the content of a file to what is no regular file. A FIFO that nobody
// reads has it wait for a reader, as cp(1) does, but for no longer than ctx.
func (d *destination) stream(ctx context.Context, t *fs.Tree, from string) error {
	n, err := t.Lookup(from, true)
	switch {
	case err != nil:
		return err
	case isDir(n):
		return &treecopy.Error{From: from, To: d.typed, Err: treecopy.ErrNotDirectory}
	case n.Mode()&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	case d.keep:
		return nil
	}
	f, err := openWaiting(ctx, d.typed, os.O_WRONLY)
	if err == nil {
		defer f.Close()
		err = catFile(ctx, cli.NewWriter(ctx, f), t, from)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return destinationError(d.typed, err)
	}
	return nil
}
