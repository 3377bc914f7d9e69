package treecopy

import (
	"errors"
	"syscall"

	"github.com/imgfs/imgfs/fs"
)

// Options are the choices of New. Nil and the zero value mean the defaults: contents
// with the permissions of the image that the umask leaves, and symlinks as they are.
type Options struct {
	// Attributes keeps mode, owner and time (cp --preserve=mode,ownership,timestamps).
	Attributes bool
	// Xattrs keeps extended attributes. Those that this user may not set, or the file
	// system does not have, are left out.
	Xattrs bool
	// HardLinks makes the second name of an inode a link to the first. Without it each
	// is a file of its own.
	HardLinks bool
	// Devices makes device nodes. Without it a device is an error: it would give access
	// to a device of this machine.
	Devices bool
	// Dereference follows symlinks, within the image.
	Dereference bool
	// Umask, if not nil, are the permissions that what is made without Attributes does not
	// get. Default: the umask of this process.
	Umask *uint32
	// KeepExisting leaves what is there as it is, but for directories.
	KeepExisting bool
	// Progress, if not nil, is called with the number of bytes of content that have
	// been written since the last call.
	Progress func(n int64)
	// Failed, if not nil, is called with an *Error for what cannot be copied alone, such as a
	// device, and the copy goes on. Default: Copy returns that error.
	Failed func(err error)
}

// What is wrong with a file of the image, or where it is to be.
var (
	// ErrDevice: a device, and Options do not want any.
	ErrDevice = errors.New("a device is made only if all attributes are kept")
	// ErrCycle: a symlink leads to a directory that it lies in, and is to be followed.
	ErrCycle = errors.New("the symlink leads to a directory above it")
	// ErrNotDirectory: something else than a directory is where one is to be, perhaps a
	// symlink to one.
	ErrNotDirectory = errors.New("cannot overwrite what is no directory with a directory")
	// ErrDirectory: a directory is where something else is to be.
	ErrDirectory = errors.New("cannot overwrite a directory with what is none")
	// ErrRemoved: somebody else has removed the directory that is copied into.
	ErrRemoved = errors.New("the directory has been removed")
	// ErrTwice: another source has been copied to this name.
	ErrTwice = errors.New("another file has been copied to this name")
)

// An Error says what could not be copied.
type Error struct {
	From string // the path in the image
	To   string // the path on this machine
	// Reading says that the image is at fault, and not the place where the copy is.
	Reading bool
	Err     error
}

// Error implements error. It names what is at fault.
func (e *Error) Error() string {
	if e.Reading {
		return e.From + ": " + e.Err.Error()
	}
	return e.To + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// An inode is one of an image.
type inode struct {
	tree *fs.Tree
	ino  uint64
}

// Size returns how many bytes of content Copy writes for what is at n and below it,
// if it follows no symlinks.
func (c *Copier) Size(n fs.Node) int64 { return c.size(n, make(map[uint64]bool)) }

func (c *Copier) size(n fs.Node, seen map[uint64]bool) (sum int64) {
	if n.Mode()&syscall.S_IFMT == syscall.S_IFREG && !seen[n.Ino()] {
		if c.opts.HardLinks && n.Attr().Nlink > 1 {
			seen[n.Ino()] = true
		}
		for off, end := range n.Data() {
			sum += end - off
		}
	}
	for _, child := range n.Children() {
		sum += c.size(child, seen)
	}
	return sum
}
