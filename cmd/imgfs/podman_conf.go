package main

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// write adds a store to storage.conf. The rest of the file stays, and its owner and mode. Two
// processes that do so take turns.
func (p *podmanAdder) write(ctx context.Context, file string, store *podstore.Store) error {
	if file == "" {
		return cli.WithHint(errors.New("there is no place for storage.conf: HOME is not set"), "CONTAINERS_STORAGE_CONF=FILE")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close() // unlocks
	_, err = untilDone(ctx, func() (struct{}, error) { return struct{}{}, unix.Flock(int(dir.Fd()), unix.LOCK_EX) })
	if err != nil {
		return &os.PathError{Op: "lock", Path: dir.Name(), Err: err}
	}
	conf, err := containersstorage.ReadConfig()
	if err != nil || slices.Contains(conf.ImageStores, store.Dir()) {
		return err
	}
	text, err := conf.WithImageStore(store.Dir())
	if err != nil {
		return err
	}
	var st unix.Stat_t
	missing := unix.Stat(file, &st)
	err = replaceFile(ctx, file, p.env.umask, func(w io.Writer) error {
		if _, err := w.Write(text); err != nil {
			return err
		}
		f, ok := w.(*os.File)
		if !ok || missing != nil {
			return nil
		}
		return f.Chown(int(st.Uid), int(st.Gid))
	})
	if err == nil && missing == nil {
		err = os.Chmod(file, iofs.FileMode(st.Mode).Perm())
	}
	if err != nil {
		return err
	}
	p.env.Warnf("%s names %s now", printable.Name(file), printable.Name(store.Dir()))
	return nil
}
