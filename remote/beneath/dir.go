package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options are the choices of Open. Nil and the zero value mean the defaults.
type Options struct {
	// Again opens the directory again, and makes it if need be, when it was
	// removed while it was in use. Its error is that of what was to be made.
	// Default: what was removed stays so.
	Again func() (*os.File, error)
	// Refused, if not nil, is told of what lies below the directory and is
	// not used. It may be called by any goroutine.
	Refused func(*RefusedError)
	// Foreign says that files may be anybody's, and that others may write them: they
	// are checked when they have been read. Default: such files are refused.
	Foreign bool
}

// A Dir is a directory, as long as it is open the same one, whatever becomes
// of its path. It is safe for concurrent use.
type Dir struct {
	root *root
	// below is where this Dir lies in the root, "." for the root itself.
	below string
}

// A root is the descriptor that all names are resolved from.
type root struct {
	path string // for messages alone
	opts Options
	walk bool // the system has no openat2
	// plain says that the system has neither O_PATH nor O_TMPFILE.
	plain bool

	file atomic.Pointer[os.File]
	mu   sync.Mutex // held while it is opened again
}

// Open opens the directory at a path, which must exist. Links in the path are
// followed: the user has named it.
func Open(name string, opts *Options) (*Dir, error) {
	f, err := os.OpenFile(name, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return New(name, f, opts), nil
}

// New returns the Dir of an open directory, which it takes over; if that is nil
// it is opened when something is to be made. The path is for messages.
func New(name string, f *os.File, opts *Options) *Dir {
	r := &root{path: name, walk: !hasOpenat2(), plain: !hasPath}
	if opts != nil {
		r.opts = *opts
	}
	if f != nil {
		r.file.Store(f)
	}
	return &Dir{root: r, below: "."}
}

// Sub returns the directory with this name below d, which need not exist yet.
// It is reached through d each time.
func (d *Dir) Sub(name string) *Dir { return &Dir{root: d.root, below: path.Join(d.below, name)} }

// Path returns the path of a name below d for messages; of d itself for ".".
func (d *Dir) Path(name string) string {
	return filepath.Join(d.root.path, d.below, name)
}

// Detach returns the descriptor, which is then the caller's, and closes d.
func (d *Dir) Detach() *os.File {
	d.root.mu.Lock()
	defer d.root.mu.Unlock()
	d.root.opts.Again = nil
	return d.root.file.Swap(nil)
}

// Close closes the descriptor. Nothing is found below d any more.
func (d *Dir) Close() error {
	if f := d.Detach(); f != nil {
		return f.Close()
	}
	return nil
}

// errNoDir: there is no directory to look in.
var errNoDir = &fs.PathError{Op: "open", Path: ".", Err: unix.ENOENT}

// at calls do with the root's descriptor.
func (r *root) at(do func(fd int) error) error {
	f := r.file.Load()
	if f == nil {
		return errNoDir
	}
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := c.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// gone reports whether the directory has been removed.
func (r *root) gone() bool {
	var st unix.Stat_t
	return r.at(func(fd int) error { return unix.Fstat(fd, &st) }) != nil || st.Nlink == 0
}

// again opens the directory again if it is gone, and returns nil if there is
// one now that was not there before.
func (r *root) again(failed error) error {
	if !errors.Is(failed, unix.ENOENT) || !r.gone() {
		return failed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone() {
		return nil // somebody else was faster
	}
	if r.opts.Again == nil {
		return failed
	}
	f, err := r.opts.Again()
	if err != nil {
		return err
	}
	// The old one is closed when nobody uses it any more, by the runtime.
	r.file.Store(f)
	return nil
}
