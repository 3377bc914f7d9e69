package tree

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A Config is where a tree is printed.
type Config struct {
	// Output takes it.
	Output io.Writer
	// Terminal says that Output is a terminal.
	Terminal bool
	// Now is the time of the listing.
	Now time.Time
	// Warnf prints a message about something that is shown in another way than was
	// asked for.
	Warnf func(format string, args ...any)
}

// A Root is a directory that is printed with all below it.
type Root struct {
	Typed string // as it is printed
	Path  string // in the image
	Image *ls.Image
}

// A Printer is one run of tree. It is for one goroutine.
type Printer struct {
	ctx   context.Context
	o     Options
	out   Config
	w     *bufio.Writer
	array *show.Array
	names namer
	utf8  bool

	root   Root
	owners map[*ls.Image]*ls.Owners
	usage  map[fs.Node]int64
	full   map[fs.Node]bool // whether something is printed below a directory, for --prune
	indent []byte
	steps  int
	err    error // of writing

	dirs, files int
	bytes       int64
}

// NewPrinter returns a Printer with the options.
func (o *Options) NewPrinter(ctx context.Context, config Config) *Printer {
	p := &Printer{ctx: ctx, o: *o, out: config, w: bufio.NewWriterSize(config.Output, 64<<10), utf8: o.utf8Charset(), owners: make(map[*ls.Image]*ls.Owners)}
	p.names = namer{quoted: o.quoted, raw: o.raw, wide: utf8Locale(), terminal: config.Terminal}
	if o.JSON {
		p.array = show.NewArray(p.w)
	}
	return p
}

// Print prints a tree. An error is about its root.
func (p *Printer) Print(r Root) error {
	n, err := r.Image.Tree.Lookup(r.Path, true)
	switch {
	case err != nil:
		return err
	case n.Mode()&unix.S_IFMT != unix.S_IFDIR:
		return unix.ENOTDIR
	}
	if p.stopped() {
		return nil
	}
	p.root, p.usage, p.full = r, make(map[fs.Node]int64), make(map[fs.Node]bool)
	typed := strings.TrimRight(r.Typed, "/")
	if typed == "" {
		typed = "/"
	}
	if p.o.usage {
		p.bytes += p.usageOf(n)
	}
	heading := r.Typed
	if p.o.fullPath {
		heading = typed
	}
	p.line(heading, n, n, r.Path)
	before := p.dirs + p.files
	if p.children(n, r.Path, typed, 1); p.dirs+p.files > before {
		p.dirs++
	}
	return nil
}

// Close prints the report, and ends the output.
func (p *Printer) Close() error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	switch {
	case p.array != nil && p.err == nil:
		p.err = p.array.Close()
	case !p.o.noReport && p.array == nil:
		p.report()
	}
	return cmp.Or(p.err, p.w.Flush())
}

func (p *Printer) report() {
	count := func(n int, one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	text := "\n"
	switch {
	case p.o.usage && p.o.human > 0:
		text += " " + p.o.size(p.bytes) + " used in "
	case p.o.usage:
		text += fmt.Sprintf(" %s bytes used in ", p.o.size(p.bytes))
	}
	text += count(p.dirs, "directory", "directories")
	if !p.o.dirsOnly {
		text += ", " + count(p.files, "file", "files")
	}
	p.write([]byte(text + "\n"))
}

func (p *Printer) write(b []byte) {
	if _, err := p.w.Write(b); err != nil && p.err == nil {
		p.err = err
	}
}

// stopped reports whether nothing more is wanted.
func (p *Printer) stopped() bool { return p.err != nil || p.ctx.Err() != nil }

// branches are what stands before names: of the directories above that have more files, and
// that have not, and before a name that others follow, and that is the last one.
type branches struct{ more, none, fork, end string }

var (
	branchesUTF8  = branches{"│\u00a0\u00a0 ", "    ", "├── ", "└── "}
	branchesASCII = branches{"|   ", "    ", "|-- ", "`-- "}
)

// children prints what is in a directory, which has a path in the image and is printed as
// shown.
func (p *Printer) children(dir fs.Node, at, shown string, depth int) {
	if depth > p.o.depth {
		return
	}
	draw := branchesASCII
	if p.utf8 {
		draw = branchesUTF8
	}
	at, shown = strings.TrimSuffix(at, "/")+"/", strings.TrimSuffix(shown, "/")+"/"
	level := len(p.indent)
	// One file is held back, as the last one looks different.
	held := -1
	one := func(i int, next string, below string) {
		name, n := dir.ChildAt(i)
		to := p.followed(n, at+name)
		p.indent = append(p.indent[:level], next...)
		text := name
		if p.o.fullPath {
			text = shown + name
		}
		p.line(text, n, to, at+name)
		p.indent = append(p.indent[:level], below...)
		if isDir(to) {
			p.dirs++
		} else {
			p.files++
		}
		if isDir(n) {
			p.children(n, at+name, shown+name, depth+1)
		}
		p.indent = p.indent[:level]
	}
	for i := range p.order(dir, at) {
		if p.steps++; p.steps%1024 == 0 && p.stopped() {
			return
		}
		if held >= 0 {
			one(held, draw.fork, draw.more)
		}
		held = i
	}
	if held >= 0 && !p.stopped() {
		one(held, draw.end, draw.none)
	}
}

func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }

// followed returns what a symlink leads to, or itself if that is nowhere.
func (p *Printer) followed(n fs.Node, at string) fs.Node {
	if n.Mode()&unix.S_IFMT == unix.S_IFLNK {
		if to, err := p.root.Image.Tree.Lookup(at, true); err == nil {
			return to
		}
	}
	return n
}

// order passes on the positions of the files of a directory that are printed, in their
// order.
func (p *Printer) order(dir fs.Node, at string) func(func(int) bool) {
	plain := func(yield func(int) bool) {
		for i := range dir.NumChildren() {
			if name, n := dir.ChildAt(i); p.shows(name, n, at) && !yield(i) {
				return
			}
		}
	}
	if (p.o.sort == byName && p.o.dirs == among && !p.o.reverse) || p.o.sort == byNothing {
		return plain
	}
	var all []int
	for i := range plain {
		all = append(all, i)
	}
	slices.SortStableFunc(all, func(i, j int) int {
		x, a := dir.ChildAt(i)
		y, b := dir.ChildAt(j)
		if p.o.dirs != among {
			place := func(n fs.Node, name string) int {
				if isDir(p.followed(n, at+name)) == (p.o.dirs == first) {
					return 0
				}
				return 1
			}
			if c := cmp.Compare(place(a, x), place(b, y)); c != 0 {
				return c
			}
		}
		c := 0
		switch s, t := a.Attr(), b.Attr(); p.o.sort {
		case byTime:
			c = cmp.Or(cmp.Compare(s.ModSec, t.ModSec), cmp.Compare(i, j))
		case bySize:
			c = cmp.Or(cmp.Compare(t.Size, s.Size), cmp.Compare(i, j))
		default:
			c = cmp.Compare(i, j)
		}
		if p.o.reverse {
			c = -c
		}
		return c
	})
	return slices.Values(all)
}

// shows reports whether a file of the directory at is printed.
func (p *Printer) shows(name string, n fs.Node, at string) bool {
	dir := isDir(n)
	if !p.o.all && strings.HasPrefix(name, ".") || p.matches(p.o.ignore, name, dir) {
		return false
	}
	if p.o.dirsOnly && !dir && !isDir(p.followed(n, at+name)) {
		return false
	}
	if !dir && len(p.o.only) > 0 && !p.matches(p.o.only, name, false) {
		return false
	}
	if p.o.prune {
		if dir {
			return p.hasFiles(n, at+name+"/")
		}
		return !isDir(p.followed(n, at+name))
	}
	return true
}

// hasFiles reports whether a directory is not empty for --prune.
func (p *Printer) hasFiles(dir fs.Node, at string) bool {
	has, known := p.full[dir]
	if !known {
		for name, n := range dir.Children() {
			if has = p.shows(name, n, at); has {
				break
			}
		}
		p.full[dir] = has
	}
	return has
}

// matches reports whether one of some patterns matches a name; those with a slash at the
// end match directories alone.
func (p *Printer) matches(patterns []string, name string, dir bool) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		pattern, only := strings.CutSuffix(pattern, "/")
		if only && !dir {
			return false
		}
		if p.o.anyCase {
			return gnu.Match(strings.ToLower(pattern), strings.ToLower(name))
		}
		return gnu.Match(pattern, name)
	})
}

// usageOf returns the sizes of a directory and of all that is printed below it.
func (p *Printer) usageOf(dir fs.Node) int64 {
	if n, known := p.usage[dir]; known {
		return n
	}
	sum := dir.Attr().Size
	for name, n := range dir.Children() {
		if !p.o.all && strings.HasPrefix(name, ".") {
			continue
		}
		size := n.Attr().Size
		if isDir(n) {
			size = p.usageOf(n)
		}
		if sum += size; sum < 0 { // sizes are claims
			sum = 1<<63 - 1
		}
		if p.steps++; p.steps%1024 == 0 && p.stopped() {
			break
		}
	}
	p.usage[dir] = sum
	return sum
}

// line prints a file, or its object.
func (p *Printer) line(text string, n, to fs.Node, at string) {
	if p.array != nil {
		if err := p.array.Add(entry.New(entry.Path(at), n)); err != nil && p.err == nil {
			p.err = err
		}
		return
	}
	var b []byte
	if !p.o.noLines {
		b = append(b, p.indent...)
	}
	b = p.appendColumns(b, n)
	b = append(b, p.names.print(text)...)
	if n.Mode()&unix.S_IFMT == unix.S_IFLNK {
		b = append(append(b, " -> "...), p.names.print(n.Target())...)
	}
	if p.o.indicators && (to != n || n.Mode()&unix.S_IFMT != unix.S_IFLNK) {
		b = append(b, indicator(to.Mode())...)
	}
	p.write(append(b, '\n'))
}

// indicator returns what -F puts behind a name.
func indicator(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "/"
	case unix.S_IFIFO:
		return "|"
	case unix.S_IFSOCK:
		return "="
	case unix.S_IFREG:
		if mode&0o111 != 0 {
			return "*"
		}
	}
	return ""
}

// halfYear is how old a file is at most whose time of day -D shows.
const halfYear = 6 * 30 * 24 * 60 * 60

// appendColumns writes what stands before a name, in brackets.
func (p *Printer) appendColumns(b []byte, n fs.Node) []byte {
	a := n.Attr()
	var columns []string
	if p.o.inodes {
		columns = append(columns, fmt.Sprintf("%7d", n.Ino()))
	}
	if p.o.modes {
		columns = append(columns, ls.ModeString(a.Mode))
	}
	if p.o.users {
		name, _ := p.ownersOf().User(a.UID)
		columns = append(columns, owner(name, a.UID))
	}
	if p.o.groups {
		name, _ := p.ownersOf().Group(a.GID)
		columns = append(columns, owner(name, a.GID))
	}
	if p.o.sizes {
		size := a.Size
		if p.o.usage && isDir(n) {
			size = p.usageOf(n)
		}
		columns = append(columns, p.o.size(size))
	}
	if p.o.dates {
		format := p.o.timeFormat
		if now := p.out.Now.Unix(); format == "" {
			if format = "%b %e %H:%M"; a.ModSec > now || a.ModSec < now-halfYear {
				format = "%b %e  %Y"
			}
		}
		columns = append(columns, p.names.harmless(string(ls.AppendTime(nil, format, time.Unix(a.ModSec, int64(a.ModNsec))))))
	}
	if columns == nil {
		return b
	}
	return append(append(append(b, '['), strings.Join(columns, " ")...), "]  "...)
}

func (p *Printer) ownersOf() *ls.Owners {
	o := p.owners[p.root.Image]
	if o == nil {
		o = ls.ReadOwners(p.ctx, p.root.Image, p.out.Warnf)
		p.owners[p.root.Image] = o
	}
	return o
}

// owner writes the name of an owner, or the number of one that has none.
func owner(name string, id uint32) string {
	if name == "" {
		return fmt.Sprintf("%-8d", id)
	}
	return fmt.Sprintf("%-8s", name)
}
