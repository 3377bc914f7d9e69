package explore

import (
	"strings"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"
)

// A Canvas is what a Model is drawn on. A tcell.Screen is one.
type Canvas interface {
	Size() (width, height int)
	// Put writes the first grapheme of a text, and returns the rest and how many columns
	// it has taken.
	Put(x, y int, text string, style tcell.Style) (rest string, width int)
	FillArea(x, y, width, height int, r rune, style tcell.Style)
	ShowCursor(x, y int)
	HideCursor()
}

var _ Canvas = (tcell.Screen)(nil)

// styles are how things look. Without colour letters say the same.
type styles struct {
	plain, title, dim, cursor, idle, added, changed, removed, failed tcell.Style
}

func newStyles(colour bool) styles {
	plain := tcell.StyleDefault
	s := styles{plain: plain, title: plain.Bold(true), dim: plain, cursor: plain.Reverse(true), idle: plain.Underline(true),
		added: plain, changed: plain, removed: plain, failed: plain.Bold(true)}
	if colour {
		s.title = plain.Bold(true).Foreground(color.XTerm6)
		s.dim = plain.Foreground(color.XTerm6)
		s.added, s.changed, s.removed = plain.Foreground(color.XTerm2), plain.Foreground(color.XTerm3), plain.Foreground(color.XTerm1)
		s.failed = plain.Bold(true).Foreground(color.XTerm1)
	}
	return s
}

// of returns the style of a mark.
func (s *styles) of(m mark) tcell.Style {
	switch m {
	case markAdded:
		return s.added
	case markChanged:
		return s.changed
	case markRemoved:
		return s.removed
	}
	return s.plain
}

// A mark is the letter of a change.
type mark byte

// The marks.
const (
	markNone    mark = ' '
	markAdded   mark = 'A'
	markChanged mark = 'M'
	markRemoved mark = 'D'
)

// An area is a part of a canvas that is drawn into.
type area struct {
	c          Canvas
	x, y, w, h int
}

// text draws text, which is harmless, into a row from a column on, and returns the column
// behind it. What does not fit is not drawn.
func (a area) text(x, y int, text string, style tcell.Style) int {
	if y < 0 || y >= a.h {
		return x
	}
	for text != "" && x < a.w {
		rest, n := a.c.Put(a.x+x, a.y+y, text, style)
		if len(rest) >= len(text) {
			break
		}
		text, x = rest, x+n
	}
	return x
}

// row fills a row, and draws text into it.
func (a area) row(y int, text string, style tcell.Style) int {
	if y < 0 || y >= a.h {
		return 0
	}
	a.c.FillArea(a.x, a.y+y, a.w, 1, ' ', style)
	return a.text(0, y, text, style)
}

// clear empties the area.
func (a area) clear(style tcell.Style) { a.c.FillArea(a.x, a.y, a.w, a.h, ' ', style) }

// part returns a part of the area.
func (a area) part(x, y, w, h int) area {
	x, y = min(max(x, 0), a.w), min(max(y, 0), a.h)
	return area{a.c, a.x + x, a.y + y, max(min(w, a.w-x), 0), max(min(h, a.h-y), 0)}
}

// has reports whether a point of the canvas is in the area.
func (a area) has(x, y int) bool {
	return x >= a.x && x < a.x+a.w && y >= a.y && y < a.y+a.h
}

// wrap breaks a text that is harmless into lines of so many columns, about: at bytes, as
// what is long is a command or a digest.
func wrap(text string, width int) (lines []string) {
	width = max(width, 8)
	for text = strings.TrimSpace(text); len(text) > width; text = strings.TrimSpace(text) {
		cut := strings.LastIndexByte(text[:width+1], ' ')
		if cut < width/2 {
			cut = width
			for cut > 1 && text[cut]&0xc0 == 0x80 {
				cut--
			}
		}
		lines = append(lines, text[:cut])
		text = text[cut:]
	}
	return append(lines, text)
}
