package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A RefusedError says of something that lies below a Dir why it is not used.
// To errors.Is it is fs.ErrNotExist: what cannot be used counts as missing.
type RefusedError struct {
	Path string // of what is at fault: the file, or a directory above it
	UID  uint32 // whose that is, if Owned
	// Owned says that UID is known.
	Owned bool
	// Err is unix.EACCES, EPERM, ELOOP (a symbolic link), EXDEV (a mount),
	// ENOTDIR, ErrNotRegular or ErrForeign.
	Err error
}

var (
	// ErrNotRegular: it is not a regular file.
	ErrNotRegular = errors.New("not a regular file")
	// ErrForeign: it belongs to another user, or others may write it.
	ErrForeign = errors.New("others may write it")
)

func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Why()) }

// Why says in a few words what is wrong with it.
func (e *RefusedError) Why() string {
	switch e.Err {
	case unix.ELOOP:
		return "it is a symbolic link"
	case unix.EXDEV:
		return "something is mounted there"
	case ErrForeign:
		return "others may write it"
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *RefusedError) Unwrap() error { return e.Err }

// Is makes it count as missing.
func (e *RefusedError) Is(target error) bool { return target == fs.ErrNotExist }

// Trusted reports whether what a user has written can be believed: what is this
// user's own, or root's.
func Trusted(uid uint32) bool { return uid == 0 || int64(uid) == int64(os.Geteuid()) }

// Safe returns nil if nobody but this user and root can change what st is of,
// else ErrForeign.
func Safe(st *unix.Stat_t) error {
	if !Trusted(st.Uid) || st.Mode&0o022 != 0 && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return ErrForeign
	}
	return nil
}

// refused makes the error of what is not used, and tells of it.
func (d *Dir) refused(path string, st *unix.Stat_t, err error) error {
	e := &RefusedError{Path: path, Err: err}
	if st != nil {
		e.UID, e.Owned = st.Uid, true
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			e.Err = unix.ELOOP
		}
	}
	if d.root.opts.Refused != nil {
		d.root.opts.Refused(e)
	}
	return e
}

// failed is the error of an operation on a name: a *RefusedError if what lies
// there is at fault.
func (d *Dir) failed(op, name string, err error) error {
	var refused *RefusedError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	err = errno(err)
	switch err {
	case unix.EACCES, unix.EPERM, unix.ELOOP, unix.EXDEV, unix.ENOTDIR:
		if at, st, ok := d.culprit(name); ok {
			return d.refused(at, st, err)
		}
	}
	return &fs.PathError{Op: op, Path: d.Path(name), Err: err}
}

// errno takes an error out of the fs.PathError around it.
func errno(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// culprit finds how far one gets on the way to a name: the last thing that can
// be looked at is what keeps one from going on. Of a mount it returns no Stat_t.
func (d *Dir) culprit(name string) (at string, last *unix.Stat_t, ok bool) {
	top := &Dir{root: d.root, below: "."}
	prefix := "."
	for part := range strings.SplitSeq(path.Join(".", d.below, name), "/") {
		prefix = path.Join(prefix, part)
		st, err := top.look(prefix)
		if err == unix.EXDEV {
			return top.Path(prefix), nil, true
		}
		if err != nil {
			break
		}
		at, last = top.Path(prefix), st
	}
	return at, last, last != nil
}

// look is Stat with the error of the system.
func (d *Dir) look(name string) (*unix.Stat_t, error) {
	if d.root.plain {
		return d.lookPlain(name)
	}
	fd, err := d.openAt(name, oPath, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	st := new(unix.Stat_t)
	return st, unix.Fstat(fd, st)
}

// lookPlain is look without a descriptor of what lies there.
func (d *Dir) lookPlain(name string) (*unix.Stat_t, error) {
	full, err := d.full(name)
	if err != nil {
		return nil, err
	}
	st := new(unix.Stat_t)
	if full == "." {
		return st, d.root.at(func(fd int) error { return unix.Fstat(fd, st) })
	}
	err = d.parent(name, func(fd int, base string) error {
		var above unix.Stat_t
		if err := unix.Fstat(fd, &above); err != nil {
			return err
		}
		if err := unix.Fstatat(fd, base, st, unix.AT_SYMLINK_NOFOLLOW|noAutomount); err != nil {
			return err
		}
		if st.Dev != above.Dev {
			return unix.EXDEV
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return st, nil
}
