package beneath

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A Visitor is called for each name that a walk comes by, below the Dir, with what
// lies there, which it must not keep. It returns whether to go into a directory.
type Visitor func(name string, st *unix.Stat_t) (enter bool)

// Walk visits everything below a directory, and the directory itself first, in the
// order of the names. It follows no link and enters nothing that is mounted.
// Names that go away meanwhile, or cannot be looked at, are not visited. closed is
// called for each directory below that cannot be read or entered; if it is the
// first that cannot be, Walk returns that error.
func (d *Dir) Walk(name string, visit Visitor, closed func(name string, err error)) error {
	fd, err := d.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return d.failed("open", name, err)
	}
	f := os.NewFile(uintptr(fd), d.Path(name))
	defer f.Close()
	st := new(unix.Stat_t)
	if err := unix.Fstat(fd, st); err != nil {
		return d.failed("stat", name, err)
	}
	if !visit(name, st) {
		return nil
	}
	w := walker{d.root, visit, closed}
	return w.below(f, name)
}

type walker struct {
	root   *root
	visit  Visitor
	closed func(name string, err error)
}

// below visits what is in an open directory.
func (w *walker) below(dir *os.File, name string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		return err
	}
	slices.Sort(names)
	fd, prefix := int(dir.Fd()), name+"/"
	if name == "." {
		prefix = ""
	}
	st := new(unix.Stat_t)
	for _, base := range names {
		below := prefix + base
		if unix.Fstatat(fd, base, st, unix.AT_SYMLINK_NOFOLLOW|noAutomount) != nil {
			continue
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !w.visit(below, st) || !isDir {
			continue
		}
		if err := w.enter(fd, base, below); err != nil {
			w.closed(below, err)
		}
	}
	return nil
}

func (w *walker) enter(parent int, base, name string) error {
	fd, err := w.root.openBelow(parent, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return w.below(f, name)
}
