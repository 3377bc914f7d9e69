package indexes

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/internal/nameless"
)

// A mount that is to outlive its process has the files of its indexes held by another
// one, which hands them to the next: whatever has become of the directory meanwhile, that
// reads the very same indexes. docs/cache-format.md, "Held files".

// Hold returns a descriptor of the file that an index of a Store is read from, or of a
// file in memory with the same content if the index has none. The caller closes it. Until
// it is closed by everybody who has got it, no process removes the file to make room, where
// the file system has locks. Of a published index only what is needed to list the layer is
// sure to be in the file. The index must be open, and go on being used: of what is fetched
// of a published one later, that file gets its part.
func Hold(x *layerindex.Index) (*os.File, error) {
	switch c := x.Closer().(type) {
	case *os.File:
		return share(c)
	case *farIndex:
		return c.hold(x)
	}
	return inMemory(func(w io.Writer) error {
		_, err := x.WriteTo(w)
		return err
	})
}

// share returns another descriptor of an open file, and locks the file. What is locked is
// the open file, and not the descriptor: the lock lasts as long as there is any.
func share(f *os.File) (*os.File, error) {
	dup, err := Dup(f)
	if err == nil {
		_ = directory.Flock(dup, unix.LOCK_SH|unix.LOCK_NB) // else it may be removed, and is still held
	}
	return dup, err
}

// Dup returns another descriptor of an open file. They have one offset.
func Dup(f *os.File) (*os.File, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, failed := -1, error(nil)
	if err := c.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), failed)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// inMemory returns a file in memory with what write writes.
func inMemory(write func(io.Writer) error) (*os.File, error) {
	f, err := nameless.Memory("imgfs-index")
	if err != nil {
		return nil, err
	}
	if err := write(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hold is Hold of a published index.
func (f *farIndex) hold(x *layerindex.Index) (*os.File, error) {
	if held, err := f.disk.hold(); held != nil || err != nil {
		return held, err
	}
	end := x.ListingEnd()
	pieces, err := x.Pieces()
	if err != nil {
		return nil, err
	}
	if _, to, ok := pieces.Range(end-1, end); ok {
		_, end = pieces.Bounds(to - 1)
	}
	return inMemory(func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f.index, 0, end))
		return err
	})
}

// hold returns a descriptor of the file, which is the one that is written from now on,
// even when its name is gone. It is nil if something did not get into it.
func (f *partFile) hold() (*os.File, error) {
	if f == nil {
		return nil, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil || f.lost {
		return nil, nil
	}
	held, err := share(f.file)
	f.pinned = f.pinned || err == nil
	return held, err
}

// OpenHeld returns the index of a layer in a file that Hold returned, maybe to another
// process. It checks the header only, and that this is of the layer. The file stays the
// caller's.
func OpenHeld(held *os.File, l layerindex.Layer) (*layerindex.Index, error) {
	f, err := Dup(held)
	if err != nil {
		return nil, err
	}
	x, err := layerindex.OpenIndex(f)
	if err == nil && (x.Digest() != l.Digest || x.DiffID() != l.DiffID) {
		err = fmt.Errorf("%w: the held one is of the layer %s with the diff_id %s", layerindex.ErrIndex, x.Digest(), x.DiffID())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

// holdPart is openPart for a file that Hold returned.
func holdPart(held *os.File, makeRoom func(int64) bool, failed func(error)) (*partFile, error) {
	file, err := Dup(held)
	if err != nil {
		return nil, err
	}
	return &partFile{makeRoom: makeRoom, failed: failed, file: file, pinned: true}, nil
}
