//go:build linux

package overlayfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// Names in the directory of an Upper.
const (
	upperName = "upper"
	workName  = "work"
	notesName = "imgfs.json"
)

// An Upper is a directory that takes what is written. In it are "upper", with what
// differs from the image, "work", where overlayfs prepares it, and "imgfs.json", with what
// to know for the next mount. The directory is for its owner alone: a setuid program of an
// image that was copied to it would otherwise be one of this machine.
//
// An Upper is locked until Close, so that it is in one mount at a time. Its methods may be
// called by several goroutines, but for Mount and Close.
type Upper struct {
	dir   string   // absolute, without symlinks
	name  string   // as the caller gave it
	lock  *os.File // the directory itself
	made  []string // what Open has made, to be removed if there is no mount
	notes notes
}

// Open opens the directory, and makes what is missing of it: the last element of its path,
// and what belongs in it. One that holds anything else is refused. Errors are of type
// *[fusefs.Error].
func Open(ctx context.Context, dir string) (*Upper, error) {
	u, err := fusefs.Ask(ctx, func(ctx context.Context) (*Upper, error) {
		u, err := open(dir)
		if err == nil && ctx.Err() != nil {
			u.Close() // nobody waits for it any more
		}
		return u, err
	})
	return u, overlayError(dir, err)
}

func open(dir string) (u *Upper, err error) {
	u = &Upper{name: dir}
	defer func() {
		if err != nil {
			u.Close()
			u = nil
		}
	}()
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		u.made = append(u.made, dir)
	case errors.Is(err, os.ErrNotExist) && isDir(filepath.Dir(dir)): // as in /proc
		return u, hinted{errNoNew, hintDisk}
	case errors.Is(err, os.ErrNotExist):
		return u, hinted{errNoParent, "mkdir -p " + printable.Word(filepath.Dir(dir))}
	case !errors.Is(err, os.ErrExist):
		return u, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return u, hinted{errNotDir, hintNew}
	case err != nil:
		return u, err
	}
	u.lock = os.NewFile(uintptr(fd), dir)
	if u.dir, err = os.Readlink(u.link("")); err != nil {
		return u, err
	}
	return u, u.take()
}

// take locks the directory and makes it fit, if it is one for an overlay.
func (u *Upper) take() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(u.lock.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return hinted{fmt.Errorf("it belongs to user %d", st.Uid), hintNew}
	}
	if err := u.takeLock(); err != nil {
		return err
	}
	names, err := u.lock.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch name {
		case upperName, workName, notesName, "lost+found":
		default:
			return hinted{fmt.Errorf("there are other things in it, such as %s", printable.Name(name)), hintNew}
		}
	}
	if u.notes, err = readNotes(u.lock); err != nil {
		return err
	}
	if on := u.notes.mountedOn(); on != "" {
		return mountedError(on) // whose process was killed
	}
	if st.Mode&0o077 != 0 {
		if err := u.lock.Chmod(0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{upperName, workName} {
		if err := u.makePart(name); err != nil {
			return err
		}
	}
	return nil
}

// lockLimit is how long processes of a mount that is gone may have it locked.
const lockLimit, lockPause = time.Second, 5 * time.Millisecond

// takeLock locks the directory, if nothing is mounted by it.
func (u *Upper) takeLock() error {
	for end := time.Now().Add(lockLimit); ; time.Sleep(lockPause) {
		if err := unix.Flock(int(u.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return nil // or the file system has no locks
		}
		other, _ := readNotes(u.lock)
		if on := other.mountedOn(); on != "" {
			return mountedError(on)
		}
		if time.Now().After(end) {
			return hinted{errInUse, hintNew}
		}
	}
}

// mountedError says that there is a mount of an Upper.
func mountedError(on string) error {
	return hinted{fmt.Errorf("%w, on %s", errInUse, printable.Name(on)), "imgfs umount " + printable.Word(on)}
}

// makePart makes a directory in the Upper, if it is not there.
func (u *Upper) makePart(name string) error {
	path := filepath.Join(u.dir, name)
	switch err := unix.Mkdirat(int(u.lock.Fd()), name, 0o755); {
	case err == nil:
		u.made = append(u.made, path)
		return nil
	case !errors.Is(err, unix.EEXIST):
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(u.lock.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return hinted{fmt.Errorf("what is called %s in it is not a directory", name), hintNew}
	}
	return nil
}

// link is a path that leads into the directory, whatever has its name by now.
func (u *Upper) link(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", u.lock.Fd()), name)
}

// Dir returns the absolute path of the directory, without symlinks.
func (u *Upper) Dir() string { return u.dir }

// Image returns what the Upper was first mounted over: the name of the image, and the
// digest of its manifest. Both are "" if that is not known.
func (u *Upper) Image() (name, manifest string) { return u.notes.Image, u.notes.Manifest }

// Close gives up the directory. What was made in it is removed if nothing was mounted. A
// mount is not ended by it. Twice does no harm.
func (u *Upper) Close() {
	for i := len(u.made) - 1; i >= 0; i-- {
		_ = unix.Rmdir(u.made[i]) // what is not empty stays
	}
	u.made = nil
	if u.lock != nil {
		if u.notes.Mount != "" && u.notes.mountedOn() == "" {
			u.notes.Mount, u.notes.Boot = "", ""
			_ = u.notes.write(u.lock) // else the next mount looks whether it is there
		}
		u.lock.Close()
		u.lock = nil
	}
}

// isDir reports whether there is a directory of that name.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// isBelow reports whether a path is that of a directory, or of something in it.
func isBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
