package sum

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ordered"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A Config is where lines go.
type Config struct {
	// Output takes the lines.
	Output io.Writer
	// Terminal says that Output is a terminal.
	Terminal bool
	// Quiet leaves out what is as it should be.
	Quiet bool
	// Warnf prints a message about lines of a list.
	Warnf func(format string, args ...any)
	// Failed prints an error about a file.
	Failed func(error)
}

// A Row is what --json prints for a file. docs/json.md has its members.
type Row struct {
	Image      string         `json:"image"`
	ImageBytes show.NameBytes `json:"imageBytes,omitempty"`
	Path       string         `json:"path"`
	PathBytes  show.NameBytes `json:"pathBytes,omitempty"`
	Digest     string         `json:"digest,omitempty"`
	Size       int64          `json:"size"`
	Read       bool           `json:"read"`
	Expected   string         `json:"expected,omitempty"`
	Status     string         `json:"status,omitempty"` // ok, differs or unreadable
}

// A file is one to be summed.
type file struct {
	image    *entry.Image
	typed    string // as it is printed
	path     string // in the image
	node     fs.Node
	expected string // in hex; "" if nothing is checked
	err      error  // why it cannot be read
	sum      string // in hex; "" if it is not known yet
	read     bool
}

// A Summer is one run of sum. It is for one goroutine.
type Summer struct {
	ctx    context.Context
	o      Options
	out    Config
	w      *bufio.Writer
	array  *show.Array // nil: no JSON
	failed bool        // some file could not be read
	counts counts
}

// NewSummer returns a Summer with the options, which must have been checked. Finish must
// be called at the end.
func (o *Options) NewSummer(ctx context.Context, config Config) *Summer {
	s := &Summer{ctx: ctx, o: *o, out: config, w: bufio.NewWriterSize(config.Output, 64<<10)}
	if o.JSON {
		s.array = show.NewArray(s.w)
	}
	return s
}

// Add prints the sums of what an argument names. An error is *fs.PathError of io/fs or
// syscall.Errno, or one of writing.
func (s *Summer) Add(a entry.Argument) error {
	n, err := a.Image.Tree.Lookup(a.Path, true)
	if err != nil {
		return err
	}
	f := file{image: a.Image, typed: a.Typed, path: "/" + strings.Trim(a.Path, "/"), node: n}
	if n.Mode()&unix.S_IFMT != unix.S_IFDIR {
		if err := regular(n); err != nil {
			return err
		}
		return s.files(slices.Values([]file{f}))
	}
	if !s.o.Recursive {
		return syscall.EISDIR
	}
	return s.files(func(yield func(file) bool) { below(f, yield) })
}

// regular returns an error if an inode is no regular file.
func regular(n fs.Node) error {
	switch n.Mode() & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return syscall.EISDIR
	}
	return errors.New("not a regular file")
}

// below yields the regular files below a directory, the names of each in byte order.
func below(dir file, yield func(file) bool) bool {
	for name, n := range dir.node.Children() {
		f := file{image: dir.image, typed: join(dir.typed, name), path: join(dir.path, name), node: n}
		switch n.Mode() & unix.S_IFMT {
		case unix.S_IFREG:
			if !yield(f) {
				return false
			}
		case unix.S_IFDIR:
			if !below(f, yield) {
				return false
			}
		}
	}
	return true
}

// join returns the path of a name in a directory.
func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// Finish ends the output. ok tells whether all files could be read.
func (s *Summer) Finish() (ok bool, err error) {
	if s.array != nil {
		if err := s.array.Close(); err != nil {
			return false, err
		}
	}
	return !s.failed, s.w.Flush()
}

// batch is how many files are looked up in the indexes at once. These are asked layer by
// layer: they have tables of sums, of which not all stay in memory.
const batch = 64 << 10

// files prints the sums of files.
func (s *Summer) files(files iter.Seq[file]) error {
	var some []*file
	for f := range files {
		if some = append(some, &f); len(some) == batch {
			if err := s.print(some); err != nil {
				return err
			}
			some = some[:0]
		}
	}
	return s.print(some)
}

// print prints the sums of some files, in their order.
func (s *Summer) print(files []*file) error {
	s.look(files)
	return ordered.Each(s.ctx, runtime.GOMAXPROCS(0), slices.Values(files), func(ctx context.Context, f *file, yield func(*file) bool) {
		if f.err == nil && f.sum == "" {
			f.sum, f.err = hash(ctx, f.node)
			f.read = true
		}
		yield(f)
	}, s.line)
}

// emptySum is the sum of nothing.
var emptySum = fmt.Sprintf("%x", sha256.Sum256(nil))

// look sets the sums that the indexes have.
func (s *Summer) look(files []*file) {
	if s.o.read {
		return
	}
	known := slices.DeleteFunc(slices.Clone(files), func(f *file) bool { return f.err != nil })
	slices.SortStableFunc(known, func(a, b *file) int { return a.node.Layer() - b.node.Layer() })
	for _, f := range known {
		if f.node.Attr().Size == 0 {
			f.sum = emptySum
			continue
		}
		// Of a damaged index the file is read, which says what is wrong, or mends it.
		if d, ok, err := f.node.ContentDigest(); ok && err == nil && s.ctx.Err() == nil {
			f.sum = d.Encoded()
		}
	}
}

// buffers are for reading files.
var buffers = sync.Pool{New: func() any { return new([1 << 20]byte) }}

// hash reads a file and returns its sum.
func hash(ctx context.Context, n fs.Node) (string, error) {
	buf := buffers.Get().(*[1 << 20]byte)
	defer buffers.Put(buf)
	h := sha256.New()
	for off := int64(0); ctx.Err() == nil; {
		k, err := n.ReadAt(ctx, buf[:], off)
		h.Write(buf[:k])
		off += int64(k)
		switch {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", err
		}
	}
	return "", ctx.Err()
}

// line prints what has become of a file.
func (s *Summer) line(f *file) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if f.err != nil && s.o.ignoreMissing && errors.Is(f.err, iofs.ErrNotExist) {
		s.counts.missing++
		return nil
	}
	if f.err != nil {
		s.failed = true
		s.fail(f)
	}
	if f.expected != "" {
		return s.checked(f)
	}
	if f.err != nil {
		return nil
	}
	if s.array != nil {
		return s.array.Add(f.row())
	}
	_, err := s.w.Write(s.o.appendLine(s.w.AvailableBuffer(), f.sum, f.typed, s.shown))
	return err
}

// shown returns a name as it is printed.
func (s *Summer) shown(name string) string { return entry.Name(name, s.out.Terminal) }

// row returns what --json prints for a file.
func (f *file) row() Row {
	r := Row{Image: f.image.Name, Path: f.path, Read: f.read}
	if f.err == nil {
		r.Digest, r.Size = "sha256:"+f.sum, f.node.Attr().Size
	}
	return r
}

// fail prints the error about a file.
func (s *Summer) fail(f *file) {
	err := f.err
	var looked *iofs.PathError
	if errors.As(err, &looked) {
		err = looked.Err
	}
	err = fmt.Errorf("%s: %w", f.typed, err)
	if !strings.HasPrefix(f.typed, f.image.Name+":/") {
		err = fmt.Errorf("%s: %w", f.image.Title, err)
	}
	s.out.Failed(err)
}
