package directory

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

// A found is a file that a walk found, of a kind that imgfs makes.
type found struct {
	Name  string // in the directory
	Kind  kind
	Bytes int64 // on disk
	Size  int64
	Mtime time.Time
	links uint64
}

// An inventory is what a walk found.
type inventory struct {
	dir    *beneath.Dir
	Total  int64 // bytes on disk, with directories
	Files  []found
	others []Other
}

// An Other is something in the directory that imgfs does not make, or cannot
// get at. It is never removed.
type Other struct {
	Path  string // in the cache directory
	Bytes int64  // on disk, with what is below it
	Why   string // it is left alone
}

// Walk sums up what lies in dir, as du does. What goes away meanwhile, or
// cannot be looked at, does not count, nor what is mounted there.
func Walk(dir *beneath.Dir) (inventory, error) {
	w := newWalker(dir)
	// What is given its name meanwhile must not be missed.
	_ = w.below(Tmp)
	w.skip = Tmp
	err := w.below(".")
	return w.inv, err
}

type walker struct {
	inv    inventory
	skip   string          // a directory that has been looked at
	linked map[uint64]bool // inodes with several names, counted once
}

func newWalker(dir *beneath.Dir) walker {
	return walker{inv: inventory{dir: dir}, linked: map[uint64]bool{}}
}

// below adds a directory and what is in it to the inventory. The error is that
// the directory cannot be read.
func (w *walker) below(dir string) error {
	return w.inv.dir.Walk(dir, w.visit, func(name string, err error) {
		w.other(name, 0, (&beneath.RefusedError{Err: err}).Why())
	})
}

func (w *walker) visit(name string, st *unix.Stat_t) (enter bool) {
	if name == w.skip {
		return false
	}
	bytes := st.Blocks * 512
	if st.Nlink > 1 && !isDir(st) {
		if w.linked[st.Ino] {
			bytes = 0
		}
		w.linked[st.Ino] = true
	}
	w.inv.Total += bytes
	kind := kindOther
	if IsRegular(st) {
		kind = KindOf(name)
	}
	switch {
	case isDir(st):
		if name != "." && !isPart(name) {
			w.other(name, bytes, "not made by imgfs")
		}
	case !IsRegular(st):
		w.other(name, bytes, "not a regular file")
	case kind == kindOther:
		w.other(name, bytes, "not made by imgfs")
	default:
		w.inv.Files = append(w.inv.Files, found{name, kind, bytes, st.Size, time.Unix(st.Mtim.Unix()), uint64(st.Nlink)})
	}
	return true
}

// other notes something that is not ours, as a part of the directory that it
// lies in if that is not ours either.
func (w *walker) other(name string, bytes int64, why string) {
	if n := len(w.inv.others); n > 0 {
		if last := &w.inv.others[n-1]; last.Path == name || strings.HasPrefix(name, last.Path+"/") {
			last.Bytes += bytes
			return
		}
	}
	w.inv.others = append(w.inv.others, Other{name, bytes, why})
}

// Usage returns how many bytes everything below the directory takes on disk,
// as du counts.
func (c *Dir) Usage() (int64, error) {
	inv, err := Walk(c.files)
	return inv.Total, err
}

// Others returns what lies in the directory and is none of the cache's, or
// cannot be got at: it counts for Usage, and is left alone.
func (c *Dir) Others() ([]Other, error) {
	inv, err := Walk(c.files)
	return inv.others, err
}

// Walk sums up what lies in the directory.
func (c *Dir) Walk() (inventory, error) { return Walk(c.files) }

// Below sums up what lies in a part of the directory. If it is not there, there
// is nothing.
func (c *Dir) Below(part string) (inventory, error) {
	w := newWalker(c.files)
	err := w.below(part)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return w.inv, err
}
