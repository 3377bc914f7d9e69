package directory

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

const (
	// lockTime is how long the lock of a file is worth waiting for. Nobody has
	// one for long, unless they are stopped, or want to be a nuisance.
	lockTime = 2 * time.Second
	// orphanTime is how old a file in tmp gets whose owner is alive, where
	// the file system has no locks that would tell.
	orphanTime = 24 * time.Hour
)

// A NewFile is a new file in tmp that is to get its name when it is complete.
// While it is open, sweep leaves it alone.
type NewFile struct {
	*os.File
	dir  *beneath.Dir
	name string
}

// Publish gives the file its name.
func (t *NewFile) Publish(name string) error { return t.dir.Rename(t.name, name) }

// Discard removes the file. It must be closed still.
func (t *NewFile) Discard() {
	// If it stays, a sweep finds it.
	_ = t.dir.Remove(t.name)
}

// IsThere reports whether the file still has its name.
func (t *NewFile) IsThere() bool { return t.dir.Is(t.File, t.name) }

// Is reports whether f is the file.
func (t *NewFile) Is(f *os.File) bool { return t.dir.Is(f, t.name) }

// Reopen opens the file for reading.
func (t *NewFile) Reopen() (*os.File, error) { return t.dir.Open(t.name) }

// NewFile creates a file that is to get its name when it is complete.
func (c *Dir) NewFile() (*NewFile, error) { return CreateOwned(c.files) }

// CreateOwned creates a file in tmp and locks it, where there are locks.
func CreateOwned(d *beneath.Dir) (*NewFile, error) {
	for {
		f, name, err := d.CreateTemp(Tmp, "")
		if err != nil {
			return nil, err
		}
		t := &NewFile{f, d, name}
		err = Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if (err == nil || NoLocks(err)) && t.IsThere() {
			return t, nil
		}
		f.Close()
		if err != nil && !NoLocks(err) && !errors.Is(err, unix.EWOULDBLOCK) {
			t.Discard()
			return nil, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		// A sweep came between the file and its lock, and removes it.
	}
}

// WriteFile gives the file with this name the content data, whole or not at
// all. It writes to a file in tmp first.
func WriteFile(d *beneath.Dir, name string, data []byte) error {
	t, err := CreateOwned(d)
	if err != nil {
		return err
	}
	defer t.Close()
	if _, err = t.Write(data); err == nil {
		err = t.Publish(name)
	}
	if err != nil {
		t.Discard()
	}
	return err
}

// Sweep removes the files in tmp whose owner is gone. What it cannot remove
// it leaves to the next one.
func Sweep(d *beneath.Dir) {
	_ = d.Walk(Tmp, func(name string, st *unix.Stat_t) bool {
		if IsRegular(st) && KindOf(name) == kindOwned {
			sweepFile(d, name)
		}
		return name == Tmp
	}, func(string, error) {})
}

// sweepFile removes a file if nobody has its lock, and reports whether it did.
// Where there are no locks it goes by the file's age.
func sweepFile(d *beneath.Dir, name string) bool {
	f, err := d.Open(name)
	if err != nil {
		return IsRefused(err) && isOrphan(d, name) && d.Remove(name) == nil
	}
	defer f.Close()
	err = Flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && (!NoLocks(err) || path.Dir(name) == Tmp && !isOrphan(d, name)) {
		return false
	}
	// The name may have become that of another file, which has an owner.
	return d.Is(f, name) && d.Remove(name) == nil
}

// isOrphan reports whether a file is too old to have an owner.
func isOrphan(d *beneath.Dir, name string) bool {
	st, err := d.Stat(name)
	return err == nil && time.Since(time.Unix(st.Mtim.Unix())) > orphanTime
}

// openOver is OpenFile for a file that is made if need be; one that is there and
// of no use to this user is replaced, where the directory is theirs.
func openOver(d *beneath.Dir, name string, flags int) (*os.File, error) {
	f, err := d.OpenFile(name, flags|os.O_CREATE)
	if IsRefused(err) && d.Remove(name) == nil {
		return d.OpenFile(name, flags|os.O_CREATE)
	}
	return f, err
}

// IsRefused reports whether err is about one file that cannot be used, and not about
// the disk.
func IsRefused(err error) bool {
	var refused *beneath.RefusedError
	return errors.As(err, &refused)
}

// Flock locks an open file. Closing it gives the lock back.
func Flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

// LockSoon takes a lock that nobody has for long. It is ErrBusy if somebody
// does; of a file system without locks see NoLocks.
func LockSoon(f *os.File) error {
	deadline := time.Now().Add(lockTime)
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		err := Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK {
			return err
		}
		if time.Now().After(deadline) {
			return ErrBusy
		}
		time.Sleep(pause)
	}
}

// NoLocks reports whether err says that a file system has no locks, or none for
// a file that cannot be written. Then what a lock is to guard is done in a way
// that needs none: docs/cache-format.md, "Without locks".
func NoLocks(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EBADF)
}

// IsRegular reports whether st is that of a regular file.
func IsRegular(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
