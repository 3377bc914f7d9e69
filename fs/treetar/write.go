package treetar

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/fs"
)

// Options are the choices of Write. Nil and the zero value mean the defaults.
type Options struct {
	// Progress, if not nil, is called with the number of bytes of content that have
	// been written since the last call. Default: nil.
	Progress func(n int64)
}

// An Error says at which path of the tree a tar broke off, and why.
type Error struct {
	Path string // begins with a slash
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Write writes the tar of what is at paths of a tree and below them to w; without
// paths, of all that is below the root. A path is named in the tar as it is in paths,
// but clean and without a slash before it, so the root is "./" if it is named. Symlinks
// at a path's end are not followed. What lies below an earlier path is there once.
//
// Nothing is written if one of the paths does not exist. An error of reading the
// tree is an *Error; one of w is returned as it is. The tar then breaks off within a
// member. Write ends with ctx.
func Write(ctx context.Context, w io.Writer, t *fs.Tree, paths []string, opts *Options) error {
	if opts == nil {
		opts = new(Options)
	}
	roots, err := rootsOf(t, paths)
	if err != nil {
		return err
	}
	tw := &writer{ctx: ctx, w: w, opts: opts, first: make(map[uint64]string)}
	for _, r := range roots {
		if err := tw.tree(r.name, r.node, r.itself); err != nil {
			return tw.breakOff(err)
		}
	}
	_, err = w.Write(zeros[:])
	return err
}

// Size returns how many bytes of content Write writes, for the same arguments.
func Size(t *fs.Tree, paths []string) (int64, error) {
	roots, err := rootsOf(t, paths)
	if err != nil {
		return 0, err
	}
	var sum int64
	seen := make(map[uint64]bool)
	for _, r := range roots {
		sum += sizeOf(r.node, seen)
	}
	return sum, nil
}

func sizeOf(n fs.Node, seen map[uint64]bool) (sum int64) {
	if n.Mode()&syscall.S_IFMT == syscall.S_IFREG && !seen[n.Ino()] {
		if n.Attr().Nlink > 1 {
			seen[n.Ino()] = true
		}
		for off, end := range runsOf(n) {
			sum += end - off
		}
	}
	for _, child := range n.Children() {
		sum += sizeOf(child, seen)
	}
	return sum
}

// A root is what one of the paths leads to.
type root struct {
	name   string // in the tar, "" of the root
	node   fs.Node
	itself bool // there is a member for it
}

// rootsOf looks paths up and leaves out those that are below others.
func rootsOf(t *fs.Tree, paths []string) ([]root, error) {
	if len(paths) == 0 {
		n, err := t.Lookup("/", false)
		return []root{{node: n}}, err
	}
	named := make(map[string]bool)
	for _, p := range paths {
		named[cleanPath(p)] = true
	}
	var roots []root
	for _, p := range paths {
		clean := cleanPath(p)
		if p == "" {
			return nil, &iofs.PathError{Op: "lookup", Path: p, Err: syscall.ENOENT}
		}
		// The slash at the end follows a symlink, and wants a directory.
		n, err := t.Lookup(strings.TrimSuffix(clean, "/")+p[len(strings.TrimRight(p, "/")):], false)
		if err != nil {
			return nil, err
		}
		if !named[clean] || belowOf(clean, named) {
			continue
		}
		named[clean] = false
		roots = append(roots, root{strings.TrimPrefix(clean, "/"), n, true})
	}
	return roots, nil
}

// cleanPath returns an absolute path without "." and "..".
func cleanPath(p string) string { return path.Clean("/" + p) }

// belowOf reports whether one of the directories above a path is named.
func belowOf(p string, named map[string]bool) bool {
	for p != "/" {
		p = path.Dir(p)
		if _, ok := named[p]; ok {
			return true
		}
	}
	return false
}

// A writer writes the members of one tar.
type writer struct {
	ctx    context.Context
	w      io.Writer
	opts   *Options
	first  map[uint64]string // by inode number: the first name of one that has several
	buf    []byte            // of headers
	data   []byte            // of content
	within bool              // a member has begun and not ended
	failed bool              // w has
}

// tree writes what is at a name and below it.
func (w *writer) tree(name string, n fs.Node, itself bool) error {
	if itself {
		if err := w.member(name, n); err != nil {
			return err
		}
	}
	for child, below := range n.Children() {
		if name != "" {
			child = name + "/" + child
		}
		if err := w.tree(child, below, true); err != nil {
			return err
		}
	}
	return nil
}

// types are the types of members by the type of the inode.
var types = map[uint32]byte{
	syscall.S_IFREG: '0', syscall.S_IFLNK: '2', syscall.S_IFCHR: '3', syscall.S_IFBLK: '4', syscall.S_IFDIR: '5', syscall.S_IFIFO: '6',
}

// member writes one member.
func (w *writer) member(name string, n fs.Node) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	h := header{name: name, attr: n.Attr(), xattrs: n.Xattrs(), linkname: n.Target()}
	format := h.attr.Mode & syscall.S_IFMT
	h.typ = types[format]
	switch {
	case format == syscall.S_IFDIR:
		if h.name += "/"; name == "" {
			h.name = "./"
		}
	case h.typ == 0:
		return &Error{"/" + name, fmt.Errorf("mode %o: no type that a tar has", h.attr.Mode)}
	case h.attr.Nlink > 1:
		if first, ok := w.first[n.Ino()]; ok {
			h.typ, h.linkname, h.size = '1', first, 0
			h.attr.Major, h.attr.Minor = 0, 0
			return w.header(&h)
		}
		w.first[n.Ino()] = name
	}
	if format != syscall.S_IFREG {
		return w.header(&h)
	}
	var runs []byte
	h.size = h.attr.Size
	if h.sparse = n.IsSparse(); h.sparse {
		runs, h.size = sparseMap(n)
	}
	if err := w.header(&h); err != nil {
		return err
	}
	w.within = h.size > 0
	if err := w.write(runs); err != nil {
		return err
	}
	for off, end := range runsOf(n) {
		if err := w.content(name, n, off, end); err != nil {
			return err
		}
	}
	if err := w.write(zeros[:padding(h.size)]); err != nil {
		return err
	}
	w.within = false
	return nil
}

// header writes the header of a member.
func (w *writer) header(h *header) error {
	w.buf = h.append(w.buf[:0])
	return w.write(w.buf)
}

// content writes a run of a file.
func (w *writer) content(name string, n fs.Node, off, end int64) error {
	if w.data == nil {
		w.data = make([]byte, 1<<20)
	}
	for off < end {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		p := w.data[:min(int64(len(w.data)), end-off)]
		k, err := n.ReadAt(w.ctx, p, off)
		if k < len(p) && (err == nil || err == io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if k < len(p) {
			if ctxErr := w.ctx.Err(); ctxErr != nil {
				return ctxErr
			}
			return &Error{"/" + name, err}
		}
		if err := w.write(p); err != nil {
			return err
		}
		off += int64(k)
		if w.opts.Progress != nil {
			w.opts.Progress(int64(k))
		}
	}
	return nil
}

func (w *writer) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := w.w.Write(p)
	w.failed = w.failed || err != nil
	return err
}

// breakOff returns err. A tar that ends between two members, or within a header, would
// be taken for a whole one by GNU tar: there it writes a header of PAX records, and no
// records.
func (w *writer) breakOff(err error) error {
	if w.within || w.failed {
		return err
	}
	if werr := w.write(appendBlock(nil, &block{typ: 'x', name: paxName, mode: 0o644, size: blockSize})); werr != nil {
		return errors.Join(err, werr)
	}
	return err
}
