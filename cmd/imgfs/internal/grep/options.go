package grep

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/spf13/pflag"
)

// A filenames says which lines begin with the name of their file.
type filenames int

const (
	ifSeveral filenames = iota // of several arguments, or below a directory
	always
	never
)

// A listing says that names of files are printed, and no lines.
type listing int

const (
	noListing listing = iota
	matching          // -l
	without           // -L
)

// A binary says what is done with files that are no text.
type binary int

const (
	tellBinary binary = iota // that they match, and not where
	asText
	skipBinary
)

// Options are what the flags of grep say. NewOptions makes them.
type Options struct {
	// Patterns are those of -e; nil: none was given.
	Patterns []string
	// Files are names of local files with patterns, of -f.
	Files []string
	// Recursive has directories searched; Follow has symlinks below them followed.
	Recursive, Follow bool
	// NoMessages leaves out errors about files.
	NoMessages bool
	// Quiet prints nothing, and ends at the first match.
	Quiet bool
	// JSON has what is found printed as a JSON array.
	JSON bool

	fixed, ignoreCase, word, line, invert bool
	count, onlyMatching                   bool
	list                                  listing
	names                                 filenames
	numbers, offsets, null                bool
	max                                   int64  // -1: no bound
	before, after                         int64  // -1: as context
	context                               int64  // -1: not given
	grouped                               bool   // lines of context were asked for, if only 0
	separator                             string // between groups of lines
	noSeparator                           bool
	binary                                binary
	choices                               choices
	excludedDirs                          []string
	colors                                func(terminal bool) bool // --color; nil: never
	color                                 bool
}

// NewOptions declares the flags of grep, and returns what they will say.
func NewOptions(f *pflag.FlagSet) *Options {
	o := &Options{max: -1, before: -1, after: -1, context: -1, separator: "--"}
	d := gnu.NewFlags(f)
	o.matching(d)
	o.selection(d)
	o.output(d)
	f.BoolVar(&o.JSON, "json", false, "print JSON")
	return o
}

func set(b *bool, to bool) func() { return func() { *b = to } }

// matching declares the flags about the pattern.
func (o *Options) matching(d gnu.Flags) {
	d.Word("e", "regexp", func(s string) error { o.Patterns = append(o.Patterns, s); return nil })
	d.Word("f", "file", func(s string) error { o.Files = append(o.Files, s); return nil })
	d.On("F", "fixed-strings", set(&o.fixed, true))
	d.Help("fixed-strings", "PATTERN is no expression but text")
	d.On("E", "extended-regexp", set(&o.fixed, false))
	re2 := errors.New("patterns are RE2's, as with -E, or text, with -F")
	for letter, name := range map[string]string{"G": "basic-regexp", "P": "perl-regexp"} {
		d.Refuse(letter, name, re2)
	}
	d.On("i", "ignore-case", set(&o.ignoreCase, true))
	d.Help("ignore-case", "upper and lower case are the same")
	d.On("y", "", set(&o.ignoreCase, true))
	d.On("", "no-ignore-case", set(&o.ignoreCase, false))
	d.On("w", "word-regexp", set(&o.word, true))
	d.Help("word-regexp", "whole words (-x: whole lines)")
	d.On("x", "line-regexp", set(&o.line, true))
	d.On("v", "invert-match", set(&o.invert, true))
	d.Help("invert-match", "lines that do not match")
}

// selection declares the flags that say what is searched.
func (o *Options) selection(d gnu.Flags) {
	d.On("r", "recursive", func() { o.Recursive = true })
	d.Help("recursive", "directories; without PATH the image (-R: symlinks)")
	d.On("R", "dereference-recursive", func() { o.Recursive, o.Follow = true, true })
	choose := func(include bool) func(string) error {
		return func(s string) error {
			o.choices = append(o.choices, choice{s, include})
			return nil
		}
	}
	d.Word("", "include", choose(true))
	d.Word("", "exclude", choose(false))
	d.Word("", "exclude-dir", func(s string) error {
		o.excludedDirs = append(o.excludedDirs, strings.TrimRight(s, "/"))
		return nil
	})
	d.On("a", "text", func() { o.binary = asText })
	d.On("I", "", func() { o.binary = skipBinary })
	d.Word("", "binary-files", gnu.OneOf(map[string]binary{"binary": tellBinary, "text": asText, "without-match": skipBinary}, func(b binary) { o.binary = b }))
	d.On("s", "no-messages", set(&o.NoMessages, true))
}

// output declares the flags that say what is printed.
func (o *Options) output(d gnu.Flags) {
	d.On("c", "count", set(&o.count, true))
	d.Help("count", "how many lines of each file")
	d.On("l", "files-with-matches", func() { o.list = matching })
	d.Help("files-with-matches", "the names of files that match (-L: of the others)")
	d.On("L", "files-without-match", func() { o.list = without })
	d.On("q", "silent", set(&o.Quiet, true))
	d.Help("silent", "nothing: exit code 0 if a line matches, else 1")
	d.On("o", "only-matching", set(&o.onlyMatching, true))
	d.Help("only-matching", "what matches, and not all of the line")
	d.On("n", "line-number", set(&o.numbers, true))
	d.Help("line-number", "with the number of the line (-b: its offset)")
	d.On("b", "byte-offset", set(&o.offsets, true))
	d.On("H", "with-filename", func() { o.names = always })
	d.On("h", "no-filename", func() { o.names = never })
	d.On("Z", "null", set(&o.null, true))
	d.Word("m", "max-count", number(&o.max))
	d.Word("A", "after-context", number(&o.after))
	d.Word("B", "before-context", number(&o.before))
	d.Word("C", "context", number(&o.context))
	d.Word("", "group-separator", func(s string) error { o.separator, o.noSeparator = s, false; return nil })
	d.On("", "no-group-separator", set(&o.noSeparator, true))
	d.Optional("", "color", []string{"always", "auto", "never"}, o.setColor)
	d.Optional("", "colour", []string{"always", "auto", "never"}, o.setColor)
	d.On("", "line-buffered", func() {})
}

// setColor reads the value of --color.
func (o *Options) setColor(word string) error {
	on := func(terminal bool) bool { return true }
	off := func(bool) bool { return false }
	auto := func(terminal bool) bool {
		term := os.Getenv("TERM")
		return terminal && os.Getenv("NO_COLOR") == "" && term != "" && term != "dumb"
	}
	whens := map[string]func(bool) bool{"always": on, "yes": on, "force": on, "never": off, "no": off, "none": off, "auto": auto, "tty": auto, "if-tty": auto}
	return gnu.OneOf(whens, func(when func(bool) bool) { o.colors = when })(word)
}

// number returns a function that sets a number of lines.
func number(to *int64) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if errors.Is(err, strconv.ErrRange) && n > 0 {
			err = nil // all of them
		}
		if err != nil || n < 0 {
			return fmt.Errorf("it is a number of lines")
		}
		*to = n
		return nil
	}
}

// Check returns an error if flags contradict each other.
func (o *Options) Check() error {
	if o.count && o.JSON && o.list != noListing {
		return cli.Usagef("grep: -c and -l exclude each other with --json")
	}
	if o.before < 0 {
		o.before = o.context
	}
	if o.after < 0 {
		o.after = o.context
	}
	o.grouped = o.before >= 0 || o.after >= 0
	return nil
}

// A choice is an --include or --exclude.
type choice struct {
	pattern string
	include bool
}

// choices are those of the command line, in its order.
type choices []choice

// excludes reports whether a file is left out: the last choice that matches decides, and
// if there is none a file is left out if the first one is an --include.
func (c choices) excludes(name string, tail bool) bool {
	for i := len(c) - 1; i >= 0; i-- {
		if matchName(c[i].pattern, name, tail) {
			return !c[i].include
		}
	}
	return len(c) > 0 && c[0].include
}

// matchName reports whether a pattern matches a name, or, with tail, what follows one of
// its slashes.
func matchName(pattern, name string, tail bool) bool {
	if tail {
		return gnu.MatchTail([]string{pattern}, name)
	}
	return gnu.Match(pattern, name)
}

// excludesDir reports whether a directory is left out.
func (o *Options) excludesDir(name string, tail bool) bool {
	for _, p := range o.excludedDirs {
		if matchName(p, name, tail) {
			return true
		}
	}
	return false
}
