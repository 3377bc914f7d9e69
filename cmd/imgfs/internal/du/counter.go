package du

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
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
	// Arguments is how many there will be.
	Arguments int
	// Failed prints an error about a file below an argument.
	Failed func(error)
}

// An Image is an image that files are counted of.
type Image struct {
	Name  string // as the user has it
	Title string // for messages
	Tree  *fs.Tree
	seen  []uint64 // a bit for each inode: it was counted
}

// An Argument names a file or directory that is to be counted.
type Argument struct {
	Typed string // as it is printed
	Path  string // in the image
	Image *Image
}

// A Line is what --json prints for a directory, a file, or the sum of all arguments.
// docs/json.md has its members.
type Line struct {
	Image      string         `json:"image,omitempty"`
	ImageBytes show.NameBytes `json:"imageBytes,omitempty"`
	Path       string         `json:"path,omitempty"`
	PathBytes  show.NameBytes `json:"pathBytes,omitempty"`
	Bytes      uint64         `json:"bytes"`
	Inodes     uint64         `json:"inodes"`
	Total      bool           `json:"total,omitempty"`
}

// A usage is what files take.
type usage struct{ bytes, inodes uint64 }

func (u *usage) add(v usage) {
	u.bytes, u.inodes = add(u.bytes, v.bytes), add(u.inodes, v.inodes)
}

// A Counter is one run of du. It is for one goroutine.
type Counter struct {
	ctx     context.Context
	o       Options
	out     Config
	w       *bufio.Writer
	array   *show.Array // nil: no JSON
	image   *Image      // of the argument that is counted
	base    string      // the path of the argument, in the image
	path    []byte      // of the file that is counted, as printed
	cut     int         // how much of path is the argument; what follows, follows base, too
	all     bool        // every inode is counted once, and not those with several names alone
	total   usage
	above   map[fs.Node]bool // the directories that are counted, with -L
	checked int              // inodes since ctx was looked at
	failed  bool
}

// NewCounter returns a Counter with the options, which must have been checked. Finish
// must be called at the end.
func (o *Options) NewCounter(ctx context.Context, config Config) *Counter {
	c := &Counter{ctx: ctx, o: *o, out: config, w: bufio.NewWriterSize(config.Output, 64<<10), above: make(map[fs.Node]bool)}
	c.all = config.Arguments > 1 || o.follow == followAll
	if o.JSON {
		c.array = show.NewArray(c.w)
	}
	return c
}

// Add counts and prints an argument. An error is *fs.PathError of io/fs, or one of
// writing.
func (c *Counter) Add(a Argument) error {
	n, err := a.Image.Tree.Lookup(a.Path, c.o.follow != followNone)
	if err != nil {
		return err
	}
	typed := oneSlash(a.Typed)
	c.image, c.base = a.Image, oneSlash(a.Path)
	c.path, c.cut = append(c.path[:0], typed...), len(typed)
	if c.image.seen == nil {
		c.image.seen = make([]uint64, (c.image.Tree.Len()+64)/64)
	}
	c.visit(n, 0)
	return c.ctx.Err()
}

// oneSlash returns a path with one slash at its end if there are several.
func oneSlash(path string) string {
	for strings.HasSuffix(path, "//") {
		path = path[:len(path)-1]
	}
	return path
}

// inImage returns where the file is in its image.
func (c *Counter) inImage() string { return c.base + string(c.path[c.cut:]) }

// Finish prints the sum of all arguments if it is wanted. ok tells whether everything
// below them was counted.
func (c *Counter) Finish() (ok bool, err error) {
	if c.o.total {
		c.image, c.path = nil, append(c.path[:0], "total"...)
		c.print(c.total)
	}
	if c.array != nil {
		if err := c.array.Close(); err != nil {
			return false, err
		}
	}
	return !c.failed, c.w.Flush()
}

// visit counts a file, whose path is c.path, with all below it, and prints what is to be
// printed of it. It returns what the directory above has of it.
func (c *Counter) visit(n fs.Node, level int) usage {
	if c.checked++; c.checked%1024 == 0 && c.ctx.Err() != nil || c.excluded() || !c.countsFirst(n) {
		return usage{}
	}
	a := n.Attr()
	own := usage{bytes: a.Blocks() * 512, inodes: 1}
	if c.o.apparent {
		own.bytes = uint64(max(a.Size, 0))
	}
	c.total.add(own)
	sum := own
	isDir := a.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir {
		below, ok := c.children(n, level)
		if !ok {
			return usage{}
		}
		sum.add(below)
	}
	if level == 0 || (isDir || c.o.all) && (c.o.depth < 0 || level <= c.o.depth) {
		size := sum.bytes
		if c.o.inodes {
			size = sum.inodes
		}
		if c.o.threshold.shows(size) {
			c.print(sum)
		}
	}
	if isDir && c.o.separate {
		return usage{}
	}
	return sum
}

// maxPath is how long a path may get by following symlinks. In an image paths have at
// most 4,096 bytes.
const maxPath = 64 << 10

// children counts what is in a directory. ok is false if the directory is within itself,
// as only symlinks make it.
func (c *Counter) children(dir fs.Node, level int) (sum usage, ok bool) {
	if c.o.follow == followAll {
		if c.above[dir] {
			return usage{}, false
		}
		c.above[dir] = true
		defer delete(c.above, dir)
	}
	length := len(c.path)
	if length > maxPath {
		c.fail(syscall.ENAMETOOLONG)
		return usage{}, true
	}
	for name, n := range dir.Children() {
		if length == 0 || c.path[length-1] != '/' {
			c.path = append(c.path, '/')
		}
		c.path = append(c.path, name...)
		if c.o.follow == followAll && n.Mode()&unix.S_IFMT == unix.S_IFLNK {
			if n = c.follow(); n == (fs.Node{}) {
				c.path = c.path[:length]
				continue
			}
		}
		sum.add(c.visit(n, level+1))
		c.path = c.path[:length]
	}
	return sum, true
}

// follow returns what the symlink leads to that is to be counted, or no node.
func (c *Counter) follow() fs.Node {
	to, err := c.image.Tree.Lookup(c.inImage(), true)
	if err != nil && !c.excluded() {
		c.fail(err)
	}
	return to
}

// fail reports that the file cannot be counted.
func (c *Counter) fail(err error) {
	c.failed = true
	var looked *iofs.PathError
	if errors.As(err, &looked) {
		err = looked.Err
	}
	err = fmt.Errorf("%s: %w", c.path, err)
	if string(c.path[:c.cut]) == c.base { // else the argument has the image
		err = fmt.Errorf("%s: %w", c.image.Title, err)
	}
	c.out.Failed(err)
}

// excluded reports whether nothing is to be counted of the file.
func (c *Counter) excluded() bool {
	return len(c.o.exclude) > 0 && gnu.MatchTail(c.o.exclude, string(c.path))
}

// countsFirst reports whether an inode is to be counted, and notes that it was.
func (c *Counter) countsFirst(n fs.Node) bool {
	a := n.Attr()
	if c.o.countLinks || !c.all && (a.Mode&unix.S_IFMT == unix.S_IFDIR || a.Nlink < 2) {
		return true
	}
	i := n.Ino() - 1
	if c.image.seen[i/64]&(1<<(i%64)) != 0 {
		return false
	}
	c.image.seen[i/64] |= 1 << (i % 64)
	return true
}

// print prints a line about c.path. A failure to write shows at the end, in Finish.
func (c *Counter) print(u usage) {
	if c.array != nil {
		l := Line{Bytes: u.bytes, Inodes: u.inodes}
		if l.Total = c.image == nil; !l.Total {
			l.Image, l.Path = c.image.Name, "/"+strings.Trim(c.inImage(), "/")
		}
		_ = c.array.Add(l)
		return
	}
	size := u.bytes
	if c.o.inodes {
		size = u.inodes
	}
	b := c.w.AvailableBuffer()
	if size == math.MaxUint64 { // add makes it of sums that are too large
		b = append(b, "Infinity"...)
	} else {
		b = c.o.unit.Append(b, size)
	}
	b = append(b, '\t')
	b = append(b, entry.Name(string(c.path), c.out.Terminal)...)
	if c.o.zero {
		b = append(b, 0)
	} else {
		b = append(b, '\n')
	}
	c.w.Write(b)
}
