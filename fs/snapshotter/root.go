package snapshotter

import (
	"crypto/rand"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The files of a root.
const (
	versionName  = "version"
	lockName     = "lock"
	databaseName = "metadata.db"
	snapshotsDir = "snapshots" // ID/fs and ID/work, of those that are not lazy
	chainsDir    = "chains"    // HEX/record.json and the mountpoint HEX/tree
	recordName   = "record.json"
	treeName     = "tree"
	removedDir   = "removed" // what is being deleted
)

// version is that of the files in a root.
const version = "1"

// A root is the directory of a snapshotter, which no other process has.
type root struct {
	dir  string
	lock *os.File
}

// openRoot makes the directory if need be, and locks it.
func openRoot(dir string) (*root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// Mounts are found by their paths in mountinfo, which have no symlinks.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, `:,\`) {
		return nil, fmt.Errorf("root %s: the options of an overlay have no place for a colon, a comma or a backslash", dir)
	}
	if err := checkOwner(dir); err != nil {
		return nil, err
	}
	r := &root{dir: dir}
	if r.lock, err = os.OpenFile(r.path(lockName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := r.open(); err != nil {
		r.lock.Close()
		return nil, err
	}
	return r, nil
}

// checkOwner refuses a root in which others could put something in the place of what
// containers are shown.
func checkOwner(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("root %s: it belongs to another user, %d", dir, owner.Uid)
	}
	if mode := st.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("root %s: others may write there (mode %03o): chmod go-w", dir, mode)
	}
	return nil
}

func (r *root) open() error {
	switch err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("root %s: another process keeps it", r.dir)
	case err != nil:
		return &os.PathError{Op: "flock", Path: r.lock.Name(), Err: err}
	}
	if err := r.checkVersion(); err != nil {
		return err
	}
	for _, name := range []string{snapshotsDir, chainsDir, removedDir} {
		if err := os.Mkdir(r.path(name), 0o700); err != nil && !errors.Is(err, iofs.ErrExist) {
			return err
		}
	}
	return nil
}

// checkVersion refuses what another version has written, and another snapshotter. It writes
// the version of this one to a root that is new.
func (r *root) checkVersion() error {
	text, err := os.ReadFile(r.path(versionName))
	switch found := strings.TrimSpace(string(text)); {
	case err == nil && found == version:
		return nil
	case err == nil:
		return fmt.Errorf("root %s: it is of version %.20q, and this imgfs keeps version %s: use the imgfs that made it, or another root", r.dir, found, version)
	case !errors.Is(err, iofs.ErrNotExist):
		return err
	}
	if _, err := os.Lstat(r.path(databaseName)); err == nil {
		return fmt.Errorf("root %s: it has the snapshots of another snapshotter: name another root", r.dir)
	}
	return replaceFile(r.path(versionName), []byte(version+"\n"))
}

// Close lets another process have the root.
func (r *root) Close() error { return r.lock.Close() }

func (r *root) path(elems ...string) string {
	return filepath.Join(append([]string{r.dir}, elems...)...)
}

// upper is where an unpacked or an active snapshot has its files, and work what an overlay
// needs beside it.
func (r *root) upper(id string) string { return r.path(snapshotsDir, id, "fs") }
func (r *root) work(id string) string  { return r.path(snapshotsDir, id, "work") }

// discard moves a directory to where removeDiscarded deletes it.
func (r *root) discard(name string) error {
	return os.Rename(r.path(snapshotsDir, name), r.path(removedDir, name+"-"+rand.Text()))
}

// removeDiscarded deletes what discard has moved, as far as that can be deleted.
func (r *root) removeDiscarded() error {
	left, err := os.ReadDir(r.path(removedDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range left {
		errs = append(errs, os.RemoveAll(r.path(removedDir, e.Name())))
	}
	return errors.Join(errs...)
}

// replaceFile writes a file that has its name when it is whole and on the disk.
func replaceFile(name string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		os.Remove(temp.Name())
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir has the names in a directory survive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
