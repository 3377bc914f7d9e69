package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// replaceFile has write make a file, which has its name when it is whole: until then
// what had the name keeps it. What is no regular file, such as /dev/null or a pipe, is
// written to as it is, and a pipe is waited for until ctx ends. A umask that is not nil holds in place of this process's.
func replaceFile(ctx context.Context, name string, umask *uint32, write func(io.Writer) error) error {
	st, err := os.Stat(name)
	switch {
	case err == nil && st.IsDir():
		return &iofs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case err == nil && !st.Mode().IsRegular():
		f, err := openWaiting(ctx, name, os.O_WRONLY)
		if err != nil {
			return err
		}
		err = errors.Join(write(f), f.Close())
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return err
	case err == nil:
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	case !errors.Is(err, iofs.ErrNotExist):
		return err
	}
	temp := filepath.Join(filepath.Dir(name), ".imgfs-"+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil && umask != nil {
		err = f.Chmod(0o666 &^ iofs.FileMode(*umask))
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}
