package ls

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A Config is where a listing goes.
type Config struct {
	// Output takes the listing.
	Output io.Writer
	// Terminal is the terminal that Output is, or nil.
	Terminal *os.File
	// Now is the time of the listing; zero is the present.
	Now time.Time
	// Warnf prints a message about something that is shown in another way than was
	// asked for.
	Warnf func(format string, args ...any)
	// Failed prints an error about a file that cannot be listed.
	Failed func(error)
}

// An Image is an image that files are listed of.
type Image struct {
	Name string // for messages
	Tree *fs.Tree
	// Layer returns the number of the layer that a file comes from, for --layers.
	Layer  func(fs.Node) int
	owners *Owners // nil: not read yet
}

// An Argument names a file or directory that is to be listed.
type Argument struct {
	Typed string // as it is printed
	Path  string // in the image
	Image *Image
}

// A Lister is one run of ls. It is for one goroutine.
type Lister struct {
	ctx       context.Context
	o         Options
	out       Config
	w         *bufio.Writer
	array     *show.Array // nil: the listing is no JSON
	eol       byte
	style     timeStyle
	quoter    quoter // of names
	headings  quoter // of directories
	targets   quoter // of symlinks
	colors    *colors
	coloured  bool // anything so far
	columns   int  // of a line; 0: any number
	printed   bool // anything so far
	troubled  bool // something could not be listed
	arguments int
	image     *Image // whose files are being printed; nil: those of arguments
	files     []row
	dirs      []row
	buf       []byte
	above     map[fs.Node]bool // the directories that are being listed, with -R and -L
}

// A row is a file to be printed.
type row struct {
	name   string
	node   fs.Node
	arg    *Argument // nil: it is in the directory of its group
	place  uint32    // its position in that directory; . and .. come behind all others
	broken bool      // a symlink that should be followed, and leads nowhere
}

// A group are rows that are laid out together: arguments, or what is in a directory.
type group struct {
	image *Image // nil: of arguments
	dir   string // the path of the directory
	rows  iter.Seq[row]
	wide  iter.Seq[row] // those that the widths of columns depend on
	order []uint32      // the rows as positions for at; nil: they are only passed over
	at    func(uint32) row
}

// NewLister returns a Lister with the options. They are not to be changed afterwards.
func (o *Options) NewLister(ctx context.Context, config Config) *Lister {
	l := &Lister{ctx: ctx, o: *o, out: config, w: bufio.NewWriterSize(config.Output, 64<<10), eol: '\n', style: o.style(), above: make(map[fs.Node]bool)}
	terminal := config.Terminal != nil
	if l.out.Now.IsZero() {
		l.out.Now = time.Now()
	}
	if o.zero {
		l.eol = 0
	}
	if o.format == unset {
		if l.o.format = single; terminal {
			l.o.format = vertical
		}
	}
	if o.classify == never || o.classify == auto && !terminal {
		l.o.indicators = noIndicators
	}
	if o.directory {
		l.o.recursive = false
	}
	if !o.followGiven && (o.directory || l.o.format == long || l.o.indicators == classes) {
		l.o.follow = followNone
	}
	if l.o.sort == byName && !o.sortGiven && o.timeGiven && l.o.format != long {
		l.o.sort = byTime
	}
	if l.colors = o.newColors(terminal, config.Warnf); l.colors != nil {
		l.o.tab = 0 // a terminal may give no colour to what a tab passes over, or any
	}
	l.columns = o.lineLength(config.Terminal)
	l.setQuoting(terminal)
	if o.json {
		l.beginJSON()
	}
	return l
}

// setQuoting chooses how names are quoted.
func (l *Lister) setQuoting(terminal bool) {
	style := l.o.quoting
	if !l.o.quotingSet {
		if named, ok := quotings[os.Getenv("QUOTING_STYLE")]; ok {
			style = named
		} else if terminal {
			style = shellEscape
		}
	}
	q := quoter{quoting: style, mark: terminal || l.o.mark}
	l.quoter, l.headings, l.targets = q, q, q
	l.headings.also = ":"
	l.quoter.also = map[indicators]string{fileTypes: "*=>@|", classes: "=>@|"}[l.o.indicators]
	if style == escaped {
		l.quoter.also += " "
	}
	l.targets.also = l.quoter.also
}

// lineLength returns how many columns a line has, and 0 if it may have any number.
func (o *Options) lineLength(terminal *os.File) int {
	if o.width >= 0 {
		return o.width
	}
	if terminal != nil {
		if n, _, err := term.GetSize(int(terminal.Fd())); err == nil && n > 0 {
			return n
		}
	}
	if n, err := strconv.ParseUint(os.Getenv("COLUMNS"), 10, 31); err == nil {
		return int(n)
	}
	return 80
}

// Add looks up an argument. An error is *fs.PathError of io/fs.
func (l *Lister) Add(a Argument) error {
	if a.Typed != a.Path {
		l.headings.also = "" // every heading of IMAGE:/PATH has a colon
	}
	n, err := l.find(&a)
	if err != nil {
		return err
	}
	if r := (row{name: a.Typed, node: n, arg: &a}); isDir(n) && !l.o.directory {
		l.dirs = append(l.dirs, r)
	} else {
		l.files = append(l.files, r)
	}
	return nil
}

// find returns the file that an argument names.
func (l *Lister) find(a *Argument) (fs.Node, error) {
	switch l.o.follow {
	case followNamed, followAll:
		return a.Image.Tree.Lookup(a.Path, true)
	case followDirs:
		if to, err := a.Image.Tree.Lookup(a.Path, true); err == nil && isDir(to) {
			return to, nil
		}
	}
	return a.Image.Tree.Lookup(a.Path, false)
}

func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }

// Print prints all arguments, files before directories. Directories have headings if
// arguments, how many the user has given, is not one. ok tells whether everything was
// listed that is in them.
func (l *Lister) Print(arguments int) (ok bool, err error) {
	l.arguments = arguments
	files, dirs := l.given(l.files), l.given(l.dirs)
	files.wide = slices.Values(slices.Concat(l.files, l.dirs))
	if len(l.files) > 0 {
		l.print(files)
	}
	for d := range dirs.rows {
		l.dir(d, d.arg.Image, d.arg.Path)
	}
	if err := l.ctx.Err(); err != nil {
		return false, err
	}
	if l.array != nil {
		if err := l.array.Close(); err != nil {
			return false, err
		}
	}
	l.endColors()
	return !l.troubled, l.w.Flush()
}

// given returns a group of arguments, sorted.
func (l *Lister) given(rows []row) *group {
	g := &group{at: func(i uint32) row { return rows[i] }}
	for i := range rows {
		g.order = append(g.order, uint32(i))
	}
	l.sort(g)
	g.rows = g.ordered
	return g
}

// ordered passes the rows of a group on, by their positions.
func (g *group) ordered(yield func(row) bool) {
	for _, i := range g.order {
		if !yield(g.at(i)) {
			return
		}
	}
}

// dir prints a directory, and with -R the directories below it. A failure to write
// shows at the end, in Print.
func (l *Lister) dir(d row, img *Image, path string) {
	if l.ctx.Err() != nil {
		return
	}
	if l.o.recursive && l.o.follow == followAll {
		if l.above[d.node] {
			l.failed(img, path, fmt.Errorf("not listed again within itself"))
			return
		}
		l.above[d.node] = true
		defer delete(l.above, d.node)
	}
	if l.array == nil && (l.arguments > 1 || l.o.recursive) {
		l.heading(d.name)
	}
	g := &group{image: img, dir: path}
	l.children(g, d.node)
	l.total(g)
	l.print(g)
	if !l.o.recursive {
		return
	}
	for c := range l.look(g.rows) {
		if isDir(c.node) && c.name != "." && c.name != ".." {
			c.name, path = below(d.name, c.name), below(g.dir, c.name)
			l.dir(c, img, path)
		}
	}
}

// below returns the path of a name in a directory.
func below(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

func (l *Lister) heading(name string) {
	if l.printed {
		l.w.WriteByte('\n')
	}
	text, _ := l.headings.quote(name)
	l.w.WriteString(text)
	l.w.WriteString(":\n")
	l.printed = true
}

// failed reports a file that cannot be listed.
func (l *Lister) failed(img *Image, path string, err error) {
	l.troubled = true
	l.out.Failed(fmt.Errorf("%s: %s: %w", img.Name, path, err))
}

// total prints how many blocks the files of a directory take, where that is wanted.
func (l *Lister) total(g *group) {
	if l.o.format != long && !l.o.blocks {
		return
	}
	var n uint64
	for r := range l.look(g.rows) {
		if !r.broken {
			n = min(n+r.node.Attr().Blocks(), math.MaxUint64/512) // sizes are claims
		}
	}
	b := l.o.block.Append(append(l.buf[:0], "total "...), n*512)
	l.buf = append(b, l.eol)
	l.w.Write(l.buf)
	l.printed = true
}

// print lays out the rows of a group.
func (l *Lister) print(g *group) {
	l.image = g.image
	switch {
	case l.array != nil:
		l.printJSON(g)
	case l.o.format == long:
		l.printLong(g)
	case l.o.format == single:
		l.printSingle(g)
	case l.o.format == commas:
		l.printSeparated(g, ",")
	case l.columns == 0:
		l.printSeparated(g, " ")
	default:
		l.printColumns(g, l.o.format == vertical)
	}
}
