package treecopy

import (
	"errors"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A descriptor is an open file whose attributes are set.
type descriptor struct {
	fd   int
	path bool // opened with O_PATH
}

// closed reports whether what is made is closed to others until it is whole, and gets its
// mode then.
func (r *run) closed() bool { return r.opts.Attributes || r.opts.Umask != nil }

// finish gives what is no directory all but its content.
func (r *run) finish(d descriptor, at place, from string, n fs.Node) error {
	if r.opts.Attributes {
		return r.attributes(d, at, from, n)
	}
	if r.opts.Xattrs {
		if err := r.xattrs(d, at, from, n); err != nil {
			return err
		}
	}
	if r.opts.Umask != nil && n.Mode()&unix.S_IFMT != unix.S_IFLNK {
		return d.chmod(n.Mode() & 0o777 &^ *r.opts.Umask)
	}
	return nil
}

// attributes gives a file the owner, extended attributes, mode and time of n. The
// mode comes behind the owner, as a change of owner takes the setuid bit away.
func (r *run) attributes(d descriptor, at place, from string, n fs.Node) error {
	a := n.Attr()
	owned, err := d.chown(a.UID, a.GID)
	if err != nil {
		return err
	}
	if r.opts.Xattrs {
		if err := r.xattrs(d, at, from, n); err != nil {
			return err
		}
	}
	mode := a.Mode & 0o7777
	if !owned {
		mode &= 0o777
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			mode |= a.Mode & unix.S_ISVTX // or everybody could remove what others have in /tmp
		}
	}
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := d.chmod(mode); err != nil {
			return err
		}
	}
	return d.setTime(a)
}

// chown sets the owner, or the group alone if this user may not do more. It reports
// whether both are set.
func (d descriptor) chown(uid, gid uint32) (bool, error) {
	err := unix.Fchownat(d.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return false, err
	}
	// EINVAL: the user namespace does not have the owner.
	_ = unix.Fchownat(d.fd, "", -1, int(gid), unix.AT_EMPTY_PATH)
	return false, nil
}

func (d descriptor) chmod(mode uint32) error {
	if d.path {
		return unix.Chmod(procPath(d.fd), mode)
	}
	return unix.Fchmod(d.fd, mode)
}

func (d descriptor) setTime(a fs.Attr) error {
	t := unix.Timespec{Sec: a.ModSec, Nsec: int64(a.ModNsec)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(d.fd), []unix.Timespec{t, t}, 0)
}

// notHere are errors of attributes that this user may not set, or the file system or
// the kernel does not take.
var notHere = []error{unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EINVAL}

// xattrs sets the extended attributes of n. One that the file has no room for is told of.
func (r *run) xattrs(d descriptor, at place, from string, n fs.Node) error {
	for _, x := range n.Xattrs() {
		var err error
		if d.path {
			err = unix.Setxattr(procPath(d.fd), x.Name, []byte(x.Value), 0)
		} else {
			err = unix.Fsetxattr(d.fd, x.Name, []byte(x.Value), 0)
		}
		if err != nil && !isAny(err, notHere) {
			failed := r.failed(at, from, &xattrError{x.Name, err})
			if r.opts.Failed == nil {
				return failed
			}
			r.opts.Failed(failed)
		}
	}
	return nil
}

// isAny reports whether an error is one of several.
func isAny(err error, all []error) bool {
	for _, e := range all {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// An xattrError says which attribute could not be set.
type xattrError struct {
	name string
	err  error
}

func (e *xattrError) Error() string { return "extended attribute " + e.name + ": " + e.err.Error() }
func (e *xattrError) Unwrap() error { return e.err }
