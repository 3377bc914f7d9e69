package beneath

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// Modes of what is made.
const (
	fileMode = 0o600
	dirMode  = 0o700
)

// Open opens a regular file for reading.
func (d *Dir) Open(name string) (*os.File, error) { return d.OpenFile(name, os.O_RDONLY) }

// OpenFile opens a regular file. The flags are those of os.OpenFile, without
// O_TRUNC; with O_CREATE it is made with mode 0600, and its directory too.
func (d *Dir) OpenFile(name string, flags int) (*os.File, error) {
	dir := ""
	if flags&os.O_CREATE != 0 {
		dir = path.Dir(name)
	}
	// Without O_NONBLOCK opening a FIFO waits for its other end.
	fd, err := d.create(name, dir, flags|unix.O_NONBLOCK|unix.O_NOCTTY, fileMode)
	if err != nil {
		return nil, d.failed("open", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, d.failed("stat", name, err)
	}
	if !d.root.opts.Foreign {
		err = Safe(&st)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return nil, d.refused(d.Path(name), &st, err)
	}
	return d.file(fd, flags, name)
}

// file makes a file of a descriptor that was opened without waiting.
func (d *Dir) file(fd, flags int, name string) (*os.File, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&os.O_APPEND); err != nil {
		unix.Close(fd)
		return nil, d.failed("open", name, err)
	}
	return os.NewFile(uintptr(fd), d.Path(name)), nil
}

// create opens a name. If there is none and dir is not "", it makes the directory
// dir and tries again, with the root opened again if that is gone.
func (d *Dir) create(name, dir string, flags int, mode uint32) (fd int, err error) {
	fd, err = d.openAt(name, flags, mode)
	if dir == "" || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := d.MkdirAll(dir); err != nil {
		return -1, err
	}
	return d.openAt(name, flags, mode)
}

// MkdirAll makes a directory with mode 0700, and those above it, if they are
// not there.
func (d *Dir) MkdirAll(name string) error {
	full, err := d.full(name)
	if err == nil {
		err = d.mkdirAll(full)
	}
	if err != nil {
		if err = d.root.again(err); err == nil {
			err = d.mkdirAll(full)
		}
	}
	return d.failed("mkdir", name, err)
}

func (d *Dir) mkdirAll(full string) error {
	top := &Dir{root: d.root, below: "."}
	fd, err := top.openAt(full, openDir, 0)
	if err == nil {
		unix.Close(fd)
		return nil
	}
	if !errors.Is(err, unix.ENOENT) || full == "." || d.root.gone() {
		return err
	}
	if err := top.mkdirAll(path.Dir(full)); err != nil {
		return err
	}
	err = top.parent(full, func(fd int, base string) error { return unix.Mkdirat(fd, base, dirMode) })
	if err == unix.EEXIST {
		if fd, err = top.openAt(full, openDir, 0); err == nil {
			unix.Close(fd)
		}
	}
	return err
}

// CreateTemp makes a new file in a directory, open for reading and writing, whose
// name is a prefix and digits; it returns the name below d.
func (d *Dir) CreateTemp(dir, prefix string) (f *os.File, name string, err error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	if _, err := d.full(dir); err != nil {
		return nil, "", d.failed("create", dir, err)
	}
	for range 1000 {
		name = path.Join(dir, prefix+strconv.FormatUint(uint64(rand.Uint32()), 10))
		if f, err = d.OpenFile(name, flags); !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
	return nil, "", err
}

// Nameless makes a new file without a name where files of a directory lie, open
// for reading and writing. It is gone when it is closed.
func (d *Dir) Nameless(dir, prefix string) (*os.File, error) {
	if !d.root.plain {
		fd, err := d.create(dir, dir, oTmpfile|unix.O_RDWR, fileMode)
		if err == nil {
			return os.NewFile(uintptr(fd), d.Path(dir)), nil
		}
	}
	// Neither every system nor every file system can do that.
	f, name, err := d.CreateTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenDir opens a directory for reading. With make it is made if need be.
func (d *Dir) OpenDir(name string, make bool) (*os.File, error) {
	if make {
		if err := d.MkdirAll(name); err != nil {
			return nil, err
		}
	}
	fd, err := d.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, d.failed("open", name, err)
	}
	return os.NewFile(uintptr(fd), d.Path(name)), nil
}

// ErrTooBig: a file has more bytes than were to be read.
var ErrTooBig = errors.New("file too big")

// ReadFile returns the content of a regular file, at most limit bytes. The error
// wraps ErrTooBig if there are more.
func (d *Dir) ReadFile(name string, limit int64) ([]byte, *unix.Stat_t, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st := new(unix.Stat_t)
	if err := unix.Fstat(int(f.Fd()), st); err != nil {
		return nil, nil, d.failed("stat", name, err)
	}
	if st.Size > limit {
		return nil, st, d.failed("read", name, ErrTooBig)
	}
	data := make([]byte, 0, st.Size+1)
	for len(data) < cap(data) {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, st, err
		}
	}
	if int64(len(data)) > st.Size {
		return nil, st, d.failed("read", name, ErrTooBig) // it grows
	}
	return data, st, nil
}
