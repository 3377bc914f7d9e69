package tree

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/spf13/pflag"
)

// A sortKey is what the files of a directory are sorted by.
type sortKey int

const (
	byName sortKey = iota
	byNothing
	byTime
	bySize
)

// A placing says where directories stand.
type placing int

const (
	among placing = iota
	first
	last
)

// Options are what the flags of tree say. NewOptions makes them.
type Options struct {
	all, dirsOnly, prune bool
	depth                int
	only, ignore         []string // patterns
	anyCase              bool
	sort                 sortKey
	reverse              bool
	dirs                 placing

	fullPath, noLines, noReport bool
	charset                     string
	quoted, raw, indicators     bool

	inodes, modes, users, groups, sizes, dates bool
	human                                      float64 // the unit that sizes are powers of; 0: bytes
	timeFormat                                 string
	usage                                      bool
	// JSON has the files printed as a JSON array.
	JSON bool
}

// NewOptions declares the flags of tree, and returns what they will say.
func NewOptions(f *pflag.FlagSet) *Options {
	o := &Options{depth: math.MaxInt}
	d := gnu.NewFlags(f)
	o.selection(d)
	o.columns(d)
	o.lines(d)
	f.BoolVar(&o.JSON, "json", false, "print the files as JSON")
	return o
}

// selection declares the flags that say which files are printed, in which order.
func (o *Options) selection(d gnu.Flags) {
	d.On("a", "", func() { o.all = true })
	d.On("d", "", func() { o.dirsOnly = true })
	d.On("", "prune", func() { o.prune = true })
	d.On("x", "", func() {}) // an image is one file system
	d.Word("L", "", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return errors.New("it is a number of levels, 1 or more")
		}
		o.depth = int(n)
		return nil
	})
	d.Word("P", "", func(s string) error { o.only = append(o.only, strings.Split(s, "|")...); return nil })
	d.Word("I", "", func(s string) error { o.ignore = append(o.ignore, strings.Split(s, "|")...); return nil })
	d.On("", "ignore-case", func() { o.anyCase = true })
	d.On("t", "", func() { o.sort = byTime })
	d.On("c", "", func() { o.sort = byTime })
	d.On("U", "", func() { o.sort = byNothing })
	keys := map[string]sortKey{"name": byName, "size": bySize, "mtime": byTime, "ctime": byTime, "none": byNothing}
	d.Word("", "sort", gnu.OneOf(keys, func(k sortKey) { o.sort = k }))
	d.On("r", "", func() { o.reverse = true })
	d.On("", "dirsfirst", func() { o.dirs = first })
	d.On("", "filesfirst", func() { o.dirs = last })
}

// columns declares the flags that say what stands before a name.
func (o *Options) columns(d gnu.Flags) {
	d.On("p", "", func() { o.modes = true })
	d.On("u", "", func() { o.users = true })
	d.On("g", "", func() { o.groups = true })
	d.On("s", "", func() { o.sizes = true })
	d.On("h", "", func() { o.sizes, o.human = true, 1024 })
	d.On("", "si", func() { o.sizes, o.human = true, 1000 })
	d.On("", "du", func() { o.sizes, o.usage = true, true })
	d.On("D", "", func() { o.dates = true })
	d.Word("", "timefmt", func(s string) error { o.dates, o.timeFormat = true, s; return nil })
	d.On("", "inodes", func() { o.inodes = true })
}

// lines declares the flags that say how names, and the lines before them, are printed.
func (o *Options) lines(d gnu.Flags) {
	d.On("f", "", func() { o.fullPath = true })
	d.On("i", "", func() { o.noLines = true })
	d.On("F", "", func() { o.indicators = true })
	d.On("Q", "", func() { o.quoted = true })
	d.On("N", "", func() { o.raw = true })
	d.On("n", "", func() {}) // there are no colours
	d.On("", "noreport", func() { o.noReport = true })
	d.Word("", "charset", func(s string) error { o.charset = s; return nil })
}

// utf8Charset reports whether lines and names are written in UTF-8: as --charset says, or
// the variable TREE_CHARSET, or the locale.
func (o *Options) utf8Charset() bool {
	for _, name := range []string{o.charset, os.Getenv("TREE_CHARSET")} {
		if name != "" {
			return isUTF8(name)
		}
	}
	return utf8Locale()
}

// utf8Locale reports whether the characters of the locale are of UTF-8.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			_, charset, _ := strings.Cut(v, ".")
			charset, _, _ = strings.Cut(charset, "@")
			return isUTF8(charset)
		}
	}
	return false
}

func isUTF8(charset string) bool {
	return strings.EqualFold(charset, "UTF-8") || strings.EqualFold(charset, "utf8")
}

// size writes a number of bytes in its column.
func (o *Options) size(n int64) string {
	if o.human == 0 {
		return fmt.Sprintf("%11d", n)
	}
	v, unit := float64(n), -1
	for v >= o.human && unit < 5 {
		v, unit = v/o.human, unit+1
	}
	units := "KMGTPE"
	if o.human == 1000 {
		units = "kMGTPE"
	}
	switch {
	case unit < 0:
		return fmt.Sprintf("%4d", n)
	case v < 10:
		return fmt.Sprintf("%3.1f%c", v, units[unit])
	}
	return fmt.Sprintf("%3.0f%c", v, units[unit])
}
