package ls

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/spf13/pflag"
)

// A format is how the files of one directory are laid out.
type format int

const (
	unset format = iota
	single
	long
	vertical
	horizontal
	commas
)

// A sortKey is what files are sorted by.
type sortKey int

const (
	byName sortKey = iota
	byNothing
	bySize
	byTime
	byExtension
	byVersion
	byWidth
)

// The indicators are characters behind a name that say what it is of. Each has those
// before it.
type indicators int

const (
	noIndicators indicators = iota
	slashes                 // / behind directories
	fileTypes               // and @, | and =
	classes                 // and *, behind programs
)

// A following says which symlinks are followed.
type following int

const (
	followDirs  following = iota // arguments that lead to directories; the default where -l, -d and -F are not given
	followNone                   // those of -l, -d and -F
	followNamed                  // all arguments
	followAll
)

// Options are what the flags of ls say. NewOptions makes them.
type Options struct {
	all, almostAll, backups bool
	ignore, hide            []string
	directory, recursive    bool
	follow                  following
	followGiven             bool

	format    format
	numeric   bool
	noOwner   bool
	noGroup   bool
	inode     bool
	layers    bool
	blocks    bool
	dirsFirst bool
	reverse   bool
	sort      sortKey
	sortGiven bool
	timeGiven bool // -c, -u or --time

	size, block gnu.Unit
	timeStyle   string
	quoting     quoting
	quotingSet  bool
	mark        bool // question marks for what acts on a terminal, in a pipe as well
	indicators  indicators
	classify    when
	color       when
	colorGiven  bool
	width       int // -1: not given
	tab         int
	zero        bool
	json        bool
}

// A when says under what condition something is done.
type when int

const (
	never when = iota
	auto       // if the output is a terminal
	always
)

var whens = map[string]when{"always": always, "yes": always, "force": always, "never": never, "no": never, "none": never,
	"auto": auto, "tty": auto, "if-tty": auto}

// NewOptions declares the flags of ls, and returns what they will say. Help does not
// list them one by one: they are many, and known.
func NewOptions(f *pflag.FlagSet) *Options {
	o := &Options{color: never, width: -1, tab: 8, size: gnu.Bytes, block: gnu.KiB}
	d := gnu.NewFlags(f)
	o.selection(d)
	o.layout(d)
	o.columns(d)
	o.names(d)
	return o
}

// Layers reports whether the layers of files are wanted: then Image.Layer is needed.
func (o *Options) Layers() bool { return o.layers }

// selection declares the flags that say which files are listed, in which order.
func (o *Options) selection(d gnu.Flags) {
	d.On("a", "all", func() { o.all, o.almostAll = true, false })
	d.On("A", "almost-all", func() { o.all, o.almostAll = false, true })
	d.On("B", "ignore-backups", func() { o.backups = true })
	d.Word("I", "ignore", func(s string) error { return appendPattern(&o.ignore, s) })
	d.Word("", "hide", func(s string) error { return appendPattern(&o.hide, s) })
	d.On("d", "directory", func() { o.directory = true })
	d.On("R", "recursive", func() { o.recursive = true })
	follow := func(how following) func() { return func() { o.follow, o.followGiven = how, true } }
	d.On("L", "dereference", follow(followAll))
	d.On("H", "dereference-command-line", follow(followNamed))
	d.On("", "dereference-command-line-symlink-to-dir", follow(followDirs))

	sort := func(key sortKey) func() { return func() { o.sort, o.sortGiven = key, true } }
	d.On("t", "", sort(byTime))
	d.On("S", "", sort(bySize))
	d.On("X", "", sort(byExtension))
	d.On("U", "", sort(byNothing))
	d.On("f", "", func() { o.all, o.almostAll, o.sort, o.sortGiven = true, false, byNothing, true })
	keys := map[string]sortKey{"name": byName, "none": byNothing, "size": bySize, "time": byTime, "extension": byExtension,
		"version": byVersion, "width": byWidth}
	d.Word("", "sort", gnu.OneOf(keys, func(key sortKey) { sort(key)() }))
	d.On("r", "reverse", func() { o.reverse = true })
	d.On("", "group-directories-first", func() { o.dirsFirst = true })
	d.On("c", "", func() { o.timeGiven = true })
	d.On("u", "", func() { o.timeGiven = true })
	times := map[string]bool{"atime": true, "access": true, "use": true, "ctime": true, "status": true, "mtime": true, "modification": true}
	d.Word("", "time", gnu.OneOf(times, func(bool) { o.timeGiven = true }))
}

// layout declares the flags that say how the files of a directory are laid out.
func (o *Options) layout(d gnu.Flags) {
	set := func(to format) func() { return func() { o.format = to } }
	one := func() {
		if o.format != long {
			o.format = single
		}
	}
	d.On("l", "", set(long))
	d.On("1", "", one)
	d.On("C", "", set(vertical))
	d.On("x", "", set(horizontal))
	d.On("m", "", set(commas))
	formats := map[string]format{"across": horizontal, "horizontal": horizontal, "commas": commas, "long": long, "verbose": long,
		"single-column": single, "vertical": vertical}
	d.Word("", "format", gnu.OneOf(formats, func(to format) { o.format = to }))
	d.On("", "json", func() { o.json = true })
	d.Word("w", "width", number(&o.width))
	d.Word("T", "tabsize", number(&o.tab))
	d.On("", "zero", func() {
		o.zero, o.color, o.colorGiven, o.quoting, o.quotingSet = true, never, true, literal, true
		one()
	})
}

// columns declares the flags that say what stands before a name.
func (o *Options) columns(d gnu.Flags) {
	d.On("n", "numeric-uid-gid", func() { o.format, o.numeric = long, true })
	d.On("g", "", func() { o.format, o.noOwner = long, true })
	d.On("o", "", func() { o.format, o.noGroup = long, true })
	d.On("G", "no-group", func() { o.noGroup = true })
	d.On("i", "inode", func() { o.inode = true })
	d.On("", "layers", func() { o.layers = true })
	d.On("s", "size", func() { o.blocks = true })
	d.On("k", "kibibytes", func() {}) // as it is without
	d.On("h", "human-readable", func() { o.size, o.block = gnu.Powers, gnu.Powers })
	d.On("", "si", func() { o.size, o.block = gnu.SI, gnu.SI })
	d.Word("", "block-size", func(s string) error {
		u, err := gnu.ParseUnit(s)
		o.size, o.block = u, u
		return err
	})
	d.On("", "full-time", func() { o.format, o.timeStyle = long, "full-iso" })
	d.Word("", "time-style", func(s string) error {
		o.timeStyle = s
		_, err := parseTimeStyle(s)
		return err
	})
}

// names declares the flags that say how a name is printed.
func (o *Options) names(d gnu.Flags) {
	d.Optional("F", "classify", slices.Sorted(maps.Keys(whens)), gnu.OneOf(whens, func(w when) { o.classify, o.indicators = w, classes }))
	indicate := func(to indicators) { o.classify, o.indicators = always, to }
	d.On("", "file-type", func() { indicate(fileTypes) })
	d.On("p", "", func() { indicate(slashes) })
	styles := map[string]indicators{"none": noIndicators, "slash": slashes, "file-type": fileTypes, "classify": classes}
	d.Word("", "indicator-style", gnu.OneOf(styles, indicate))
	d.Optional("", "color", slices.Sorted(maps.Keys(whens)), gnu.OneOf(whens, func(w when) { o.color, o.colorGiven = w, true }))
	quote := func(to quoting) { o.quoting, o.quotingSet = to, true }
	d.On("N", "literal", func() { quote(literal) })
	d.On("Q", "quote-name", func() { quote(cQuoted) })
	d.On("b", "escape", func() { quote(escaped) })
	d.Word("", "quoting-style", gnu.OneOf(quotings, quote))
	d.On("", "hide-control-chars", func() { o.mark = true })
}

// number returns a function that sets a number of columns.
func number(to *int) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return fmt.Errorf("it is a number of columns")
		}
		*to = int(n)
		return nil
	}
}

// appendPattern adds a pattern of the shell's.
func appendPattern(to *[]string, pattern string) error {
	pattern = strings.ReplaceAll(pattern, "[!", "[^")
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("it is no pattern of a shell")
	}
	*to = append(*to, pattern)
	return nil
}

// matches reports whether one of some patterns matches a name.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// shows reports whether a name of a directory is listed.
func (o *Options) shows(name string) bool {
	if !o.all && !o.almostAll && (strings.HasPrefix(name, ".") || matches(o.hide, name)) {
		return false
	}
	return !(o.backups && strings.HasSuffix(name, "~")) && !matches(o.ignore, name)
}
