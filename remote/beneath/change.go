package beneath

import (
	"errors"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Remove removes the name of a regular file. Other names that it has keep it.
// Anything but a regular file is refused, and stays.
func (d *Dir) Remove(name string) error {
	err := d.parent(name, func(fd int, base string) error {
		if err := d.regular(fd, base, name); err != nil {
			return err
		}
		// A mount on the file keeps its name: EBUSY.
		return unix.Unlinkat(fd, base, 0)
	})
	return d.failed("remove", name, err)
}

// regular returns nil if a name is that of a regular file.
func (d *Dir) regular(fd int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return d.refused(d.Path(name), &st, ErrNotRegular)
	}
	return nil
}

// Rename gives a file another name, in a directory that is made if need be. A
// regular file that had that name loses it; anything else is refused.
func (d *Dir) Rename(from, to string) error {
	err := d.rename(from, to)
	if errors.Is(err, unix.ENOENT) && d.Exists(from) {
		if err := d.MkdirAll(path.Dir(to)); err != nil {
			return err
		}
		err = d.rename(from, to)
	}
	return d.failed("rename", to, err)
}

func (d *Dir) rename(from, to string) error {
	return d.parent(from, func(fromDir int, fromBase string) error {
		if err := d.regular(fromDir, fromBase, from); err != nil {
			return err
		}
		return d.parent(to, func(toDir int, toBase string) error {
			if err := d.regular(toDir, toBase, to); err != nil && err != unix.ENOENT {
				return err
			}
			return unix.Renameat(fromDir, fromBase, toDir, toBase)
		})
	})
}

// Touch sets the time of a regular file's last modification.
func (d *Dir) Touch(name string, t time.Time) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.failed("touch", name, setTimes(int(f.Fd()), t))
}

func setMicroseconds(fd int, t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Futimes(fd, []unix.Timeval{tv, tv})
}

// Writable returns nil if files can be made in the directory with this name.
func (d *Dir) Writable(name string) error {
	fd, err := d.openAt(name, openDir, 0)
	if err != nil {
		return d.failed("open", name, err)
	}
	defer unix.Close(fd)
	return unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}
