package main

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// write adds a store to storage.conf. The rest of the file stays, and its owner and mode.
func (p *podmanAdder) write(conf *containersstorage.Config, store *podstore.Store) error {
	if conf.Own == "" {
		return cli.WithHint(errors.New("there is no place for storage.conf: HOME is not set"), "CONTAINERS_STORAGE_CONF=FILE")
	}
	text, err := conf.WithImageStore(store.Dir())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(conf.Own), 0o755); err != nil {
		return err
	}
	var st unix.Stat_t
	missing := unix.Stat(conf.Own, &st)
	err = replaceFile(context.Background(), conf.Own, p.env.umask, func(w io.Writer) error {
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
		err = os.Chmod(conf.Own, iofs.FileMode(st.Mode).Perm())
	}
	if err != nil {
		return err
	}
	p.env.Warnf("%s names %s now", printable.Name(conf.Own), printable.Name(store.Dir()))
	return nil
}
