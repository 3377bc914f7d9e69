package ls

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
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
	blocks    bool
	dirsFirst bool
	reverse   bool
	sort      sortKey
	sortGiven bool
	timeGiven bool // -c, -u or --time

	size, block unit
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
	o := &Options{color: never, width: -1, tab: 8, size: unit{size: 1}, block: unit{size: 1024}}
	d := declarer{f}
	o.selection(d)
	o.layout(d)
	o.columns(d)
	o.names(d)
	return o
}

// selection declares the flags that say which files are listed, in which order.
func (o *Options) selection(d declarer) {
	d.on("a", "all", func() { o.all, o.almostAll = true, false })
	d.on("A", "almost-all", func() { o.all, o.almostAll = false, true })
	d.on("B", "ignore-backups", func() { o.backups = true })
	d.word("I", "ignore", func(s string) error { return appendPattern(&o.ignore, s) })
	d.word("", "hide", func(s string) error { return appendPattern(&o.hide, s) })
	d.on("d", "directory", func() { o.directory = true })
	d.on("R", "recursive", func() { o.recursive = true })
	follow := func(how following) func() { return func() { o.follow, o.followGiven = how, true } }
	d.on("L", "dereference", follow(followAll))
	d.on("H", "dereference-command-line", follow(followNamed))
	d.on("", "dereference-command-line-symlink-to-dir", follow(followDirs))

	sort := func(key sortKey) func() { return func() { o.sort, o.sortGiven = key, true } }
	d.on("t", "", sort(byTime))
	d.on("S", "", sort(bySize))
	d.on("X", "", sort(byExtension))
	d.on("U", "", sort(byNothing))
	d.on("f", "", func() { o.all, o.almostAll, o.sort, o.sortGiven = true, false, byNothing, true })
	keys := map[string]sortKey{"name": byName, "none": byNothing, "size": bySize, "time": byTime, "extension": byExtension,
		"version": byVersion, "width": byWidth}
	d.word("", "sort", oneOf(keys, func(key sortKey) { sort(key)() }))
	d.on("r", "reverse", func() { o.reverse = true })
	d.on("", "group-directories-first", func() { o.dirsFirst = true })
	d.on("c", "", func() { o.timeGiven = true })
	d.on("u", "", func() { o.timeGiven = true })
	times := map[string]bool{"atime": true, "access": true, "use": true, "ctime": true, "status": true, "mtime": true, "modification": true}
	d.word("", "time", oneOf(times, func(bool) { o.timeGiven = true }))
}

// layout declares the flags that say how the files of a directory are laid out.
func (o *Options) layout(d declarer) {
	set := func(to format) func() { return func() { o.format = to } }
	one := func() {
		if o.format != long {
			o.format = single
		}
	}
	d.on("l", "", set(long))
	d.on("1", "", one)
	d.on("C", "", set(vertical))
	d.on("x", "", set(horizontal))
	d.on("m", "", set(commas))
	formats := map[string]format{"across": horizontal, "horizontal": horizontal, "commas": commas, "long": long, "verbose": long,
		"single-column": single, "vertical": vertical}
	d.word("", "format", oneOf(formats, func(to format) { o.format = to }))
	d.word("w", "width", number(&o.width))
	d.word("T", "tabsize", number(&o.tab))
	d.on("", "zero", func() {
		o.zero, o.color, o.colorGiven, o.quoting, o.quotingSet = true, never, true, literal, true
		one()
	})
}

// columns declares the flags that say what stands before a name.
func (o *Options) columns(d declarer) {
	d.on("n", "numeric-uid-gid", func() { o.format, o.numeric = long, true })
	d.on("g", "", func() { o.format, o.noOwner = long, true })
	d.on("o", "", func() { o.format, o.noGroup = long, true })
	d.on("G", "no-group", func() { o.noGroup = true })
	d.on("i", "inode", func() { o.inode = true })
	d.on("s", "size", func() { o.blocks = true })
	d.on("k", "kibibytes", func() {}) // as it is without
	d.on("h", "human-readable", func() { o.size, o.block = unit{base: 1024}, unit{base: 1024} })
	d.on("", "si", func() { o.size, o.block = unit{base: 1000}, unit{base: 1000} })
	d.word("", "block-size", func(s string) error {
		u, err := parseUnit(s)
		o.size, o.block = u, u
		return err
	})
	d.on("", "full-time", func() { o.format, o.timeStyle = long, "full-iso" })
	d.word("", "time-style", func(s string) error {
		o.timeStyle = s
		_, err := parseTimeStyle(s)
		return err
	})
}

// names declares the flags that say how a name is printed.
func (o *Options) names(d declarer) {
	d.optional("F", "classify", slices.Sorted(maps.Keys(whens)), oneOf(whens, func(w when) { o.classify, o.indicators = w, classes }))
	indicate := func(to indicators) { o.classify, o.indicators = always, to }
	d.on("", "file-type", func() { indicate(fileTypes) })
	d.on("p", "", func() { indicate(slashes) })
	styles := map[string]indicators{"none": noIndicators, "slash": slashes, "file-type": fileTypes, "classify": classes}
	d.word("", "indicator-style", oneOf(styles, indicate))
	d.optional("", "color", slices.Sorted(maps.Keys(whens)), oneOf(whens, func(w when) { o.color, o.colorGiven = w, true }))
	quote := func(to quoting) { o.quoting, o.quotingSet = to, true }
	d.on("N", "literal", func() { quote(literal) })
	d.on("Q", "quote-name", func() { quote(cQuoted) })
	d.on("b", "escape", func() { quote(escaped) })
	d.word("", "quoting-style", oneOf(quotings, quote))
	d.on("", "hide-control-chars", func() { o.mark = true })
}

// A declarer declares flags that help does not list. A flag that has only a letter in
// GNU ls has it as its long name, too.
type declarer struct{ set *pflag.FlagSet }

func (d declarer) hide(f *pflag.Flag) *pflag.Flag {
	f.Hidden, f.Annotations = true, map[string][]string{cli.Known: nil}
	return f
}

// on declares a flag without a value.
func (d declarer) on(letter, name string, do func()) {
	value := setter(func(s string) error {
		if s != "true" {
			return fmt.Errorf("it takes no value")
		}
		do()
		return nil
	})
	d.optionalValue(letter, name, value, "true")
}

// optional declares a flag whose value, one of some words, may be missing; then it is
// "always".
func (d declarer) optional(letter, name string, words []string, set func(string) error) {
	d.optionalValue(letter, name, set, "always").Annotations[cli.Words] = words
}

func (d declarer) optionalValue(letter, name string, set setter, value string) *pflag.Flag {
	if name == "" {
		name = letter
	}
	f := d.hide(d.set.VarPF(set, name, letter, ""))
	f.NoOptDefVal = value
	return f
}

// word declares a flag with a value.
func (d declarer) word(letter, name string, set func(string) error) {
	d.hide(d.set.VarPF(setter(set), name, letter, ""))
}

// A setter is a pflag.Value that calls a function in the order of the command line.
type setter func(string) error

// Set implements pflag.Value.
func (s setter) Set(text string) error { return s(text) }

// String implements pflag.Value.
func (s setter) String() string { return "" }

// Type implements pflag.Value.
func (s setter) Type() string { return "" }

// oneOf returns a function that sets one of some values by its name.
func oneOf[T any](values map[string]T, set func(T)) func(string) error {
	return func(s string) error {
		v, ok := values[s]
		if !ok {
			return fmt.Errorf("it is one of %s", strings.Join(slices.Sorted(maps.Keys(values)), ", "))
		}
		set(v)
		return nil
	}
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
