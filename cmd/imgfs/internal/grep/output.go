package grep

import (
	"strconv"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/printable"
)

// A Row is what --json prints for a line, or, with -c and -l, for a file. docs/json.md has
// its members.
type Row struct {
	Image      string         `json:"image"`
	ImageBytes show.NameBytes `json:"imageBytes,omitempty"`
	Path       string         `json:"path"`
	PathBytes  show.NameBytes `json:"pathBytes,omitempty"`
	Line       int64          `json:"line,omitempty"`
	Offset     *int64         `json:"offset,omitempty"`
	Text       string         `json:"text,omitempty"`
	TextBytes  show.NameBytes `json:"textBytes,omitempty"`
	Matches    []Match        `json:"matches,omitempty"`
	Context    bool           `json:"context,omitempty"`
	Binary     bool           `json:"binary,omitempty"`
	Count      *int64         `json:"count,omitempty"`
}

// A Match is where in a line a match is, in bytes.
type Match struct {
	Begin int `json:"begin"`
	End   int `json:"end"`
}

// A result is a part of what is found in a file.
type result struct {
	text []byte
	rows []Row
	// group says that text begins with a group of lines.
	group bool
	file  *file // nil but for the last one of a file
	// Of the file: whether a line was selected, whether that was not printed as it is no
	// text, and why it could not be read.
	selected, binary bool
	err              error
}

// chunk is how many bytes a result has, or somewhat more.
const chunk = 64 << 10

// output makes results of the lines of a file.
type output struct {
	*search
	yield func(result) bool
	row   result
	size  int // of row
}

// reset begins the output of a file.
func (o *output) reset(s *search, yield func(result) bool) {
	*o = output{search: s, yield: yield}
}

// flush passes on what there is, if it is much, or in any case.
func (o *output) flush(last bool) {
	if !last && o.size < chunk {
		return
	}
	r := o.row
	if last {
		r.file, r.selected, r.binary, r.err = o.file, o.selects > 0, o.search.binary, o.err
	}
	if o.row, o.size = (result{}), 0; !o.yield(r) {
		o.ended = true
	}
}

// finish ends the output of a file, which has been searched.
func (o *output) finish() {
	switch {
	case o.Quiet:
	case o.list != noListing:
		if (o.selects > 0) == (o.list == matching) {
			o.name()
		}
	case o.count:
		o.counted()
	case o.JSON && o.search.binary:
		o.add(Row{Image: o.file.image.Name, Path: o.file.inImage, Binary: true})
	}
}

func (o *output) add(r Row) {
	o.row.rows = append(o.row.rows, r)
	o.size += len(r.Text) + len(r.Path) + 64
}

// name prints the name of the file alone.
func (o *output) name() {
	if o.JSON {
		o.add(Row{Image: o.file.image.Name, Path: o.file.inImage})
		return
	}
	o.colored(fileColor, o.file.shown)
	if o.null {
		o.write("\x00")
	} else {
		o.write("\n")
	}
}

// counted prints how many lines of the file were selected.
func (o *output) counted() {
	n := o.selects
	if o.JSON {
		o.add(Row{Image: o.file.image.Name, Path: o.file.inImage, Count: &n})
		return
	}
	if o.file.named {
		o.prefix(":")
	}
	o.row.text = append(strconv.AppendInt(o.row.text, n, 10), '\n')
}

// line prints a line, or, with -o, what matches in it.
func (o *output) line(b []byte, from, to int, context bool) {
	defer o.flush(false)
	text := trimEnd(b[from:to])
	if o.onlyMatching {
		if !o.invert {
			o.separate(o.base + int64(from))
			o.printed = o.base + int64(to)
			o.parts(b, from, text)
		}
		return
	}
	if o.unprintable(text) {
		return
	}
	o.separate(o.base + int64(from))
	o.printed = o.base + int64(to)
	if o.JSON {
		row := o.rowOf(b, from, text)
		if row.Context = context; !context && !o.invert {
			for _, m := range o.pattern.all(text) {
				row.Matches = append(row.Matches, Match{m[0], m[1]})
			}
		}
		o.add(row)
		return
	}
	sep := ":"
	if context {
		sep = "-"
	}
	o.head(b, from, from, sep)
	if o.color && context == o.invert {
		o.marked(text, context)
	} else {
		o.content(text)
	}
	o.write("\n")
}

// parts prints what matches in a line, each on a line of its own.
func (o *output) parts(b []byte, from int, text []byte) {
	for _, m := range o.pattern.all(text) {
		part := text[m[0]:m[1]]
		if o.unprintable(part) {
			continue
		}
		if o.JSON {
			o.add(o.rowOf(b, from+m[0], part))
			continue
		}
		o.head(b, from, from+m[0], ":")
		o.sgr(matchColor)
		o.content(part)
		o.sgr("")
		o.write("\n")
		o.flush(false)
	}
}

// unprintable reports whether a text is none. That the file has such a line is told at
// its end.
func (o *output) unprintable(text []byte) bool {
	if o.Options.binary == asText || utf8.Valid(text) {
		return false
	}
	o.search.binary = o.Options.binary == tellBinary
	return true
}

// separate prints what stands between lines of context that do not follow each other.
func (o *output) separate(from int64) {
	switch {
	case !o.grouped || o.JSON:
	case o.printed < 0:
		o.row.group = true
	case o.printed != from:
		o.row.text = o.appendSeparator(o.row.text)
	}
}

// appendSeparator writes what stands between groups of lines.
func (o *Options) appendSeparator(b []byte) []byte {
	if o.noSeparator {
		return b
	}
	if o.color {
		return append(append(append(append(b, start(sepColor)...), o.separator...), end...), '\n')
	}
	return append(append(b, o.separator...), '\n')
}

// rowOf returns what --json prints for a text in the line that begins at a place.
func (o *output) rowOf(b []byte, at int, text []byte) Row {
	off := o.base + int64(at)
	return Row{Image: o.file.image.Name, Path: o.file.inImage, Line: o.countTo(at), Offset: &off, Text: string(text)}
}

// head prints what stands before a line that begins at from, or before what matches at
// match in it.
func (o *output) head(_ []byte, from, match int, sep string) {
	if o.file.named {
		o.prefix(sep)
	}
	if o.numbers {
		o.colored(numberColor, strconv.FormatInt(o.countTo(from), 10))
		o.colored(sepColor, sep)
	}
	if o.offsets {
		o.colored(numberColor, strconv.FormatInt(o.base+int64(match), 10))
		o.colored(sepColor, sep)
	}
}

// prefix prints the name of the file before something.
func (o *output) prefix(sep string) {
	o.colored(fileColor, o.file.shown)
	if o.null {
		o.write("\x00")
	} else {
		o.colored(sepColor, sep)
	}
}

// marked prints a line with its matches in colour.
func (o *output) marked(text []byte, context bool) {
	at := 0
	for _, m := range o.pattern.all(text) {
		o.content(text[at:m[0]])
		o.sgr(matchColor)
		o.content(text[m[0]:m[1]])
		o.sgr("")
		at = m[1]
	}
	o.content(text[at:])
}

// content prints text of a file. On a terminal, where it could act, it is escaped.
func (o *output) content(text []byte) {
	if o.file.terminal {
		o.write(printable.Text(string(text)))
		return
	}
	o.row.text = append(o.row.text, text...)
	o.size += len(text)
}

func (o *output) write(s string) {
	o.row.text = append(o.row.text, s...)
	o.size += len(s)
}

// The colours are those that GNU grep has without GREP_COLORS.
const (
	matchColor  = "01;31"
	fileColor   = "35"
	numberColor = "32"
	sepColor    = "36"
	end         = "\x1b[m\x1b[K"
)

func start(color string) string { return "\x1b[" + color + "m\x1b[K" }

// sgr begins a colour, or, if it is "", ends it.
func (o *output) sgr(color string) {
	switch {
	case !o.color:
	case color == "":
		o.write(end)
	default:
		o.write(start(color))
	}
}

func (o *output) colored(color, text string) {
	o.sgr(color)
	o.write(text)
	o.sgr("")
}

// shown returns a name as it is printed.
func shown(name string, terminal bool) string { return entry.Name(name, terminal) }
