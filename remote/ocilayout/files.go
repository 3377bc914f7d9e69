package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/kindof"
	"github.com/imgfs/imgfs/remote/internal/localblob"
	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// A directory holds a layout's files, and keeps those open that were read.
type directory struct {
	root string

	mu sync.Mutex
	// opened is nil once the directory is closed.
	opened map[string]*file
}

var _ files = (*directory)(nil)

func newDirectory(root string) *directory {
	return &directory{root: root, opened: make(map[string]*file)}
}

// A file is an open file and the size that it had then.
type file struct {
	*os.File
	size int64
}

// Size implements localblob.Content.
func (f *file) Size() int64 { return f.size }

// Opened returns the file, for localblob.
func (f *file) Opened() *os.File { return f.File }

func (d *directory) open(name string) (localblob.Content, error) {
	d.mu.Lock()
	f, closed := d.opened[name], d.opened == nil
	d.mu.Unlock()
	switch {
	case closed:
		return nil, sentinel(fs.ErrClosed)
	case f != nil:
		return f, nil
	}
	f, err := d.openFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		// The digest, which the caller adds, says it better than the path.
		return nil, remote.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return d.keep(name, f)
}

func (d *directory) size(name string) (int64, error) {
	d.mu.Lock()
	f := d.opened[name]
	d.mu.Unlock()
	if f != nil {
		return f.size, nil
	}
	info, err := os.Stat(filepath.Join(d.root, filepath.FromSlash(name)))
	if err != nil {
		return 0, sentinel(err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: not a regular file", remote.ErrUnavailable)
	}
	return info.Size(), nil
}

func (d *directory) reopen(name string) (closableContent, error) {
	f, err := d.openFile(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *directory) openFile(name string) (*file, error) {
	f, err := openFile(filepath.Join(d.root, filepath.FromSlash(name)))
	if err != nil {
		return nil, sentinel(err)
	}
	return f, nil
}

// keep remembers f, unless someone else has opened the file meanwhile.
func (d *directory) keep(name string, f *file) (localblob.Content, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		f.Close()
		return nil, sentinel(fs.ErrClosed)
	}
	if first := d.opened[name]; first != nil {
		f.Close()
		return first, nil
	}
	d.opened[name] = f
	return f, nil
}

func (d *directory) explain(loc remote.Location, err error) error {
	return kindof.Explain(context.Background(), loc, err)
}

// openFile opens a regular file. It does not open what is none, and does not
// wait for a fifo that has come to its place meanwhile.
func openFile(path string) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err = f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{f, info.Size()}, nil
}

// Close implements io.Closer.
func (d *directory) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, f := range d.opened {
		errs = append(errs, f.Close())
	}
	d.opened = nil
	return errors.Join(errs...)
}

// An archive holds a layout's files in a tar file.
type archive struct {
	*tarball.Archive
}

var _ files = archive{}

func (a archive) explain(loc remote.Location, err error) error {
	return kindof.ExplainArchive(loc, a.Archive, err)
}

func (a archive) open(name string) (localblob.Content, error) {
	r, err := a.Member(name)
	switch {
	case errors.Is(err, remote.ErrTooBig):
		return nil, err
	case errors.Is(err, tarball.ErrNotFile):
		return nil, fmt.Errorf("%w: %w", remote.ErrNotFound, err)
	case err != nil:
		return nil, remote.ErrNotFound
	}
	return r, nil
}

func (a archive) size(name string) (int64, error) {
	r, err := a.open(name)
	if err != nil {
		return 0, err
	}
	return r.Size(), nil
}

func (a archive) reopen(name string) (closableContent, error) {
	content, err := a.open(name)
	if err != nil {
		return nil, err
	}
	return member{content}, nil
}

// A member of an archive needs no closing of its own.
type member struct{ localblob.Content }

// Close implements io.Closer.
func (member) Close() error { return nil }
