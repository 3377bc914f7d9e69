package find

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A Config is where what is found goes.
type Config struct {
	// Output takes it.
	Output io.Writer
	// Terminal says that Output is a terminal.
	Terminal bool
	// JSON has files printed as objects of a JSON array.
	JSON bool
	// Warnf prints a message about something that is shown in another way than was
	// asked for.
	Warnf func(format string, args ...any)
	// Failed prints an error about a file that cannot be looked at.
	Failed func(error)
}

// A Start is where a search begins.
type Start struct {
	// Prefix stands before the paths that are printed: IMAGE: or nothing. Tests do
	// not see it.
	Prefix string
	// Typed is the path as the user wrote it, with which printed paths begin.
	Typed string
	// Path is the same one in the image.
	Path  string
	Image *ls.Image
}

// A Walker is one run of find. It is for one goroutine.
type Walker struct {
	ctx    context.Context
	e      *Expression
	out    Config
	w      *bufio.Writer
	array  *show.Array
	buf    []byte
	widths lsWidths
	steps  int

	start   Start
	path    []byte // of the file being looked at, without the prefix
	above   []fs.Node
	owners  map[*ls.Image]*ls.Owners
	pruned  bool // the directory that is being looked at
	quit    bool
	trouble bool
	err     error // of writing
}

// A file is what an expression is about.
type file struct {
	w     *Walker
	name  string  // the last component of its path; of the root a slash
	node  fs.Node // what tests are about: with -L what a symlink leads to
	link  fs.Node // the file itself
	attr  fs.Attr // of node
	depth int
	path  string // lazily, see pathname
}

// NewWalker returns a Walker that prints what the expression finds.
func (e *Expression) NewWalker(ctx context.Context, config Config) *Walker {
	w := &Walker{ctx: ctx, e: e, out: config, w: bufio.NewWriterSize(config.Output, 64<<10), widths: newWidths(), owners: make(map[*ls.Image]*ls.Owners)}
	if config.JSON {
		w.array = show.NewArray(w.w)
	}
	return w
}

// Walk searches one tree. An error is about its start, or what the expression says of
// the image: the search of others can go on.
func (w *Walker) Walk(s Start) error {
	if w.quit || w.stopped() {
		return nil
	}
	w.start, w.path, w.above = s, append(w.path[:0], s.Typed...), w.above[:0]
	link, err := s.Image.Tree.Lookup(s.Path, false)
	if err != nil {
		return err
	}
	node := link
	if w.e.follow != followNone {
		if node, err = w.followed(link); err != nil {
			return err
		}
	}
	for _, prepare := range w.e.prepare {
		if err := prepare(w); err != nil {
			return err
		}
	}
	name := strings.TrimRight(s.Typed, "/")
	name = name[strings.LastIndexByte(name, '/')+1:]
	if name == "" {
		name = "/"
	}
	w.visit(name, node, link, 0)
	return nil
}

// Close ends the output. ok tells whether everything was looked at.
func (w *Walker) Close() (ok bool, err error) {
	if err := w.ctx.Err(); err != nil {
		return false, err
	}
	if w.array != nil && w.err == nil {
		w.err = w.array.Close()
	}
	if w.err != nil {
		return false, w.err
	}
	return !w.trouble, w.w.Flush()
}

// stopped reports whether nothing more is wanted.
func (w *Walker) stopped() bool { return w.err != nil || w.ctx.Err() != nil }

// visit looks at a file and all below it.
func (w *Walker) visit(name string, node, link fs.Node, depth int) {
	if w.steps++; w.steps%1024 == 0 && w.stopped() {
		w.quit = true
	}
	if w.quit {
		return
	}
	f := file{w: w, name: name, node: node, link: link, attr: node.Attr(), depth: depth}
	dir := f.attr.Mode&unix.S_IFMT == unix.S_IFDIR
	if dir && w.e.follow != followNone && slices.Contains(w.above, node) {
		w.failed(fmt.Errorf("a symlink leads back to a directory above it"))
		return
	}
	w.pruned = false
	if !w.e.depthFirst && depth >= w.e.minDepth {
		w.e.test(&f)
	}
	if dir && !w.pruned && !w.quit && depth < w.e.maxDepth {
		w.children(node, depth)
	}
	if w.e.depthFirst && depth >= w.e.minDepth && !w.quit {
		w.e.test(&f)
	}
}

// children looks at what is in a directory.
func (w *Walker) children(dir fs.Node, depth int) {
	if w.e.follow != followNone {
		w.above = append(w.above, dir)
		defer func() { w.above = w.above[:len(w.above)-1] }()
	}
	end := len(w.path)
	if end == 0 || w.path[end-1] != '/' {
		w.path = append(w.path, '/')
	}
	base := len(w.path)
	for i := range dir.NumChildren() {
		name, link := dir.ChildAt(i)
		w.path = append(w.path[:base], name...)
		node := link
		if w.e.follow == followAll {
			var err error
			if node, err = w.followed(link); err != nil {
				w.failed(err)
				continue
			}
		}
		if w.visit(name, node, link, depth+1); w.quit {
			break
		}
	}
	w.path = w.path[:end]
}

// followed returns what a symlink leads to, or itself if that is nowhere.
func (w *Walker) followed(n fs.Node) (fs.Node, error) {
	if n.Mode()&unix.S_IFMT != unix.S_IFLNK {
		return n, nil
	}
	to, err := w.target()
	switch {
	case err == nil:
		return to, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return n, nil
	}
	return n, err
}

// target returns what the symlink leads to that is being looked at.
func (w *Walker) target() (fs.Node, error) {
	return w.start.Image.Tree.Lookup(w.treePath(), true)
}

// treePath returns the path of the file that is being looked at in its image.
func (w *Walker) treePath() string { return w.start.Path + string(w.path[len(w.start.Typed):]) }

// failed reports a file that cannot be looked at.
func (w *Walker) failed(err error) {
	w.trouble = true
	var looked *iofs.PathError
	if errors.As(err, &looked) {
		err = looked.Err
	}
	w.out.Failed(fmt.Errorf("%s: %s: %w", w.start.Image.Name, w.path, err))
}

// pathname returns the path of a file, as tests see it.
func (f *file) pathname() string {
	if f.path == "" {
		f.path = string(f.w.path)
	}
	return f.path
}

// isLink reports whether a test sees a symlink.
func (f *file) isLink() bool { return f.attr.Mode&unix.S_IFMT == unix.S_IFLNK }

// ownersOf returns the names of owners of the image that is being searched.
func (w *Walker) ownersOf() *ls.Owners {
	o := w.owners[w.start.Image]
	if o == nil {
		o = ls.ReadOwners(w.ctx, w.start.Image, w.out.Warnf)
		w.owners[w.start.Image] = o
	}
	return o
}

// write prints bytes that are done.
func (w *Walker) write(b []byte) {
	if _, err := w.w.Write(b); err != nil && w.err == nil {
		w.err = err
	}
}

// printPath prints the path of a file, and an end.
func (f *file) printPath(end byte) {
	w := f.w
	if w.out.Terminal {
		w.buf = append(append(w.buf[:0], entry.Name(w.start.Prefix+f.pathname(), true)...), end)
	} else {
		w.buf = append(append(append(w.buf[:0], w.start.Prefix...), w.path...), end)
	}
	w.write(w.buf)
}

// print is -print: a line, or an object of the JSON array.
func (f *file) print() {
	w := f.w
	if w.array == nil {
		f.printPath('\n')
		return
	}
	if err := w.array.Add(entry.New(entry.Path(w.treePath()), f.node)); err != nil && w.err == nil {
		w.err = err
	}
}
