package show

import (
	"bytes"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// Columns returns how many columns a terminal has.
func Columns(tty *os.File) int {
	cols, _ := terminalSize(int(tty.Fd()))
	return cols
}

// A Column is one of a Table.
type Column struct {
	Title string
	// Least is how narrow the column may be made: of a longer text the middle is
	// left out. 0: it has room for its longest text.
	Least int
	// CutEnd leaves out the end of a longer text instead.
	CutEnd bool
	// Drop says when the column is left out where there is no room for all: that
	// with 1 first. 0: never.
	Drop int
	// Wrap has longer texts go on in another line; for the last column.
	Wrap bool
}

// A Table prints rows of text below each other in columns. Where they do not fit they
// are made narrower, and then fewer.
type Table struct {
	width   int // 0: as wide as need be
	columns []Column
	rows    [][]string // the first one is the titles, if there are any
}

// NewTable returns a table for width columns of a terminal, or with no limit if that
// is 0. It has a line of titles if the first column has one.
func NewTable(width int, columns ...Column) *Table {
	t := &Table{width: width, columns: columns}
	if columns[0].Title != "" {
		titles := make([]string, len(columns))
		for i, c := range columns {
			titles[i] = c.Title
		}
		t.rows = [][]string{titles}
	}
	return t
}

// Row adds a row of as many cells as there are columns. They are to be harmless.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// gap is between two columns.
const gap = "  "

// Print prints the table, and what columns are not in it.
func (t *Table) Print(w io.Writer) error {
	shown, widths := t.fit()
	var b bytes.Buffer
	for _, row := range t.rows {
		t.line(&b, row, shown, widths)
	}
	if missing := t.missing(shown); len(missing) > 0 {
		b.WriteString(Wrap(t.width, "no room for "+strings.Join(missing, ", ")+": a wider terminal has them, in a pipe COLUMNS=200, and --json") + "\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// missing returns the titles of the columns that are left out.
func (t *Table) missing(shown []bool) (titles []string) {
	for i, c := range t.columns {
		if !shown[i] && c.Title != "" {
			titles = append(titles, c.Title)
		}
	}
	return titles
}

// line adds a row to b. No line ends with a blank.
func (t *Table) line(b *bytes.Buffer, row []string, shown []bool, widths []int) {
	line, at := "", 0
	last := 0
	for i := range row {
		if shown[i] {
			last = i
		}
	}
	for i, cell := range row {
		switch {
		case !shown[i]:
			continue
		case i == last && t.columns[i].Wrap && t.width > 0:
			lines := strings.Split(wrapTo(max(1, t.width-at), cell), "\n")
			cell = strings.Join(lines, "\n"+strings.Repeat(" ", at))
		case t.columns[i].CutEnd:
			cell = ShortenEnd(cell, widths[i])
		default:
			cell = Shorten(cell, widths[i])
		}
		if line += cell; i != last {
			line += strings.Repeat(" ", widths[i]-textWidth(cell)) + gap
			at += widths[i] + len(gap)
		}
	}
	for line := range strings.SplitSeq(line, "\n") {
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// fit decides which columns there is room for, and how wide they are.
func (t *Table) fit() (shown []bool, widths []int) {
	shown, widths = make([]bool, len(t.columns)), make([]int, len(t.columns))
	least := make([]int, len(t.columns))
	for i, c := range t.columns {
		shown[i] = true
		for _, row := range t.rows {
			widths[i] = max(widths[i], textWidth(row[i]))
		}
		switch least[i] = widths[i]; {
		case c.Wrap:
			least[i] = min(widths[i], 10)
		case c.Least > 0:
			least[i] = min(widths[i], max(c.Least, textWidth(c.Title)))
		}
	}
	if t.width <= 0 {
		return shown, widths
	}
	for drop := 1; total(least, shown) > t.width && drop <= len(t.columns); drop++ {
		for i, c := range t.columns {
			if c.Drop == drop {
				shown[i] = false
			}
		}
	}
	// The widest gives way first, and if nothing can any more, those that should not.
	for _, floor := range [][]int{least, make([]int, len(widths))} {
		for total(widths, shown) > t.width {
			widest := -1
			for i := range widths {
				if shown[i] && widths[i] > max(floor[i], 1) && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
	return shown, widths
}

// total returns how wide a row is.
func total(widths []int, shown []bool) int {
	n := -len(gap)
	for i, w := range widths {
		if shown[i] {
			n += w + len(gap)
		}
	}
	return n
}

// Shorten returns a text that takes no more than width columns: of a longer one the
// middle is left out.
func Shorten(text string, width int) string {
	if textWidth(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	runes := []rune(text)
	head, tail := 0, len(runes)
	left, fromHead := width-1, true // … takes one
	for head < tail {
		r := runes[head]
		if !fromHead {
			r = runes[tail-1]
		}
		if left -= columnsOf.RuneWidth(r); left < 0 {
			break
		}
		if fromHead {
			head++
		} else {
			tail--
		}
		fromHead = !fromHead
	}
	return string(runes[:head]) + "…" + strings.TrimLeftFunc(string(runes[tail:]), isMark)
}

// ShortenEnd returns a text that takes no more than width columns: of a longer one the
// end is left out.
func ShortenEnd(text string, width int) string {
	if textWidth(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	left := width - 1 // … takes one
	for i, r := range text {
		if left -= columnsOf.RuneWidth(r); left < 0 {
			return text[:i] + "…"
		}
	}
	return text
}

// Wrap returns a sentence in lines of no more than width columns, those but the first
// a little to the right; as it is if width is 0.
func Wrap(width int, text string) string {
	if width <= 0 || textWidth(text) <= width {
		return text
	}
	first, rest, _ := strings.Cut(wrapTo(width, text), "\n")
	if rest == "" {
		return first
	}
	const indent = "  "
	if width <= len(indent) {
		return first + "\n" + rest
	}
	rest = wrapTo(width-len(indent), strings.ReplaceAll(rest, "\n", " "))
	return first + "\n" + indent + strings.ReplaceAll(rest, "\n", "\n"+indent)
}

// wrapTo breaks a text at its spaces. Of a word that is too long the middle is left
// out.
func wrapTo(width int, text string) string {
	if textWidth(text) <= width {
		return text
	}
	var b strings.Builder
	at := 0
	for i, word := range strings.Split(text, " ") {
		word = Shorten(word, width)
		n := textWidth(word)
		switch {
		case i == 0:
		case at+1+n > width:
			b.WriteByte('\n')
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// columnsOf are how many columns runes take, whatever the locale.
var columnsOf = &runewidth.Condition{}

// textWidth returns how many columns a text takes.
func textWidth(text string) int {
	n := 0
	for _, r := range text {
		n += columnsOf.RuneWidth(r)
	}
	return n
}

// isMark reports whether a rune stands on the one before it.
func isMark(r rune) bool { return unicode.In(r, unicode.Mn, unicode.Me) }

// Width returns how many columns of a terminal a text takes that is harmless.
func Width(text string) int { return textWidth(text) }
