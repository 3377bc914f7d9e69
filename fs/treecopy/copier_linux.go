package treecopy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A Copier copies files of images. What it has copied before counts: of hard links of
// one image the first one, wherever it is. It is used by one goroutine at a time.
type Copier struct {
	opts  Options
	links map[inode]linked // if HardLinks
	taken map[target]bool  // names that Copy was called with
	named bool             // there is no O_TMPFILE here, or no /proc
	buf   []byte
}

// A target is a name in a directory.
type target struct {
	dev, ino uint64
	name     string
}

// New returns a Copier. nil options are the defaults.
func New(opts *Options) *Copier {
	if opts == nil {
		opts = new(Options)
	}
	_, noProc := os.Stat("/proc/self/fd")
	return &Copier{opts: *opts, links: make(map[inode]linked), taken: make(map[target]bool), named: noProc != nil}
}

// Copy copies the inode n of a tree, whose path there is from, and what is below it.
// The copy is the file name in dir; "." is dir itself, if n is a directory. A directory
// that is there stays and gets what is not in it. Dir must stay open as long as the
// Copier is used, and its name is what errors begin with.
//
// An error is an *Error, or that of ctx, with which Copy ends. It ends too if the image
// cannot be read, or if dir takes nothing any more.
func (c *Copier) Copy(ctx context.Context, t *fs.Tree, from string, n fs.Node, dir *os.File, name string) error {
	if c.buf == nil {
		c.buf = make([]byte, 1<<20)
	}
	r := &run{Copier: c, ctx: ctx, tree: t, root: dir}
	at := place{fd: int(dir.Fd()), name: name, below: name}
	var st unix.Stat_t
	if err := unix.Fstat(at.fd, &st); err != nil {
		return r.failed(at, from, err)
	}
	if key := (target{st.Dev, st.Ino, name}); name != "." {
		if c.taken[key] {
			return r.tell(r.failed(at, from, ErrTwice))
		}
		c.taken[key] = true
	}
	return r.node(at, from, n, nil)
}

// A run is one call of Copy.
type run struct {
	*Copier
	ctx  context.Context
	tree *fs.Tree
	root *os.File
}

// A place is where a copy goes: a name in an open directory.
type place struct {
	fd    int
	name  string
	below string // the path below root
}

// failed returns an *Error about a place.
func (r *run) failed(at place, from string, err error) *Error {
	return &Error{From: from, To: filepath.Join(r.root.Name(), at.below), Err: err}
}

// unread returns an *Error about the image, or that of the context.
func (r *run) unread(at place, from string, err error) error {
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	failed := r.failed(at, from, err)
	failed.Reading = true
	return failed
}

// fatal are errors that others will follow.
var fatal = []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE, unix.ENFILE, ErrRemoved}

// tell tells the caller of an error, and returns nil if the copy goes on.
func (r *run) tell(err error) error {
	var failed *Error
	if !errors.As(err, &failed) || r.opts.Failed == nil || failed.Reading && !errors.Is(err, ErrCycle) && !errors.Is(err, ErrDevice) {
		return err
	}
	if isAny(err, fatal) {
		return err
	}
	r.opts.Failed(err)
	return nil
}

// node copies an inode and what is below it. above are the directories that it is in.
func (r *run) node(at place, from string, n fs.Node, above []uint64) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if n.Mode()&unix.S_IFMT == unix.S_IFLNK && r.opts.Dereference {
		to, err := r.tree.Lookup(from, true)
		if err != nil {
			return r.tell(r.lookedUp(at, from, err))
		}
		n = to
	}
	var err error
	switch n.Mode() & unix.S_IFMT {
	case unix.S_IFDIR:
		if slices.Contains(above, n.Ino()) {
			return r.tell(r.unread(at, from, ErrCycle))
		}
		return r.dir(at, from, n, append(above, n.Ino()))
	case unix.S_IFREG:
		err = r.file(at, from, n)
	default:
		err = r.special(at, from, n)
	}
	if err != nil {
		return r.tell(r.orRemoved(at, from, err))
	}
	return nil
}

// orRemoved returns an error of a place, or that its directory is not there any more.
func (r *run) orRemoved(at place, from string, err error) error {
	var failed *Error
	var st unix.Stat_t
	if errors.As(err, &failed) && !failed.Reading && unix.Fstat(at.fd, &st) == nil && st.Nlink == 0 {
		return &Error{From: from, To: filepath.Join(r.root.Name(), filepath.Dir(at.below)), Err: ErrRemoved}
	}
	return err
}

// lookedUp returns the error of a symlink that leads nowhere. The copy goes on behind it.
func (r *run) lookedUp(at place, from string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return &Error{From: from, To: filepath.Join(r.root.Name(), at.below), Err: &linkError{from, err}}
}

// A linkError says that a symlink of the image cannot be followed.
type linkError struct {
	path string
	err  error
}

func (e *linkError) Error() string { return "the symlink " + e.path + ": " + e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// dir copies a directory.
func (r *run) dir(at place, from string, n fs.Node, above []uint64) error {
	mode := n.Mode() & 0o1777
	perm := mode | 0o700
	if r.closed() {
		perm = 0o700
	}
	made := unix.Mkdirat(at.fd, at.name, perm)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return r.tell(r.orRemoved(at, from, r.failed(at, from, made)))
	}
	fd, err := unix.Openat(at.fd, at.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = ErrNotDirectory
	}
	if err != nil {
		return r.tell(r.orRemoved(at, from, r.failed(at, from, err)))
	}
	defer unix.Close(fd)
	err = r.children(place{fd: fd, below: at.below}, from, n, above)
	// The attributes are set after an error, too: what is there keeps others out as
	// the image does.
	var attrs error
	switch {
	case r.opts.Attributes:
		attrs = r.attributes(descriptor{fd: fd}, at, from, n)
	case made == nil && r.opts.Umask != nil:
		var st unix.Stat_t
		if attrs = unix.Fstat(fd, &st); attrs == nil { // which may have got setgid
			attrs = unix.Fchmod(fd, st.Mode&0o7000|mode&^*r.opts.Umask)
		}
	case made == nil && perm != mode:
		var st unix.Stat_t
		if attrs = unix.Fstat(fd, &st); attrs == nil {
			attrs = unix.Fchmod(fd, st.Mode&0o7777&^(0o700&^mode))
		}
	}
	if err == nil && attrs != nil {
		err = r.tell(r.orFailed(at, from, attrs))
	}
	return err
}

// children copies what is in a directory into the open one of the place.
func (r *run) children(in place, from string, n fs.Node, above []uint64) error {
	if from == "/" {
		from = ""
	}
	for name, child := range n.Children() {
		at := place{in.fd, name, filepath.Join(in.below, name)}
		if err := r.node(at, from+"/"+name, child, above); err != nil {
			return err
		}
	}
	return nil
}
