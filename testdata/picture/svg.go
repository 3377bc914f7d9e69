package main

import (
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"
)

// How the picture looks, in pixels.
const (
	charWidth  = 8.4 // of 14 px of any monospaced font, forced by textLength
	lineHeight = 19
	margin     = 16
	titleBar   = 28
)

// A line is a line of the terminal.
type line struct {
	text  string
	typed bool // by the user, behind the prompt
}

// svg draws lines as a terminal of so many columns.
func svg(lines []line, columns int) string {
	width := int(charWidth*float64(columns)) + 2*margin
	height := len(lines)*lineHeight + titleBar + 2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">`+"\n", width, height, width, height)
	b.WriteString("<title>imgfs in a terminal</title>\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#1b1f24"/>`+"\n", width, height)
	for i, colour := range []string{"#f47067", "#e3b341", "#57ab5a"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="16" r="5" fill="%s"/>`+"\n", margin+4+i*18, colour)
	}
	for i, l := range lines {
		if l.text == "" {
			continue
		}
		y := titleBar + margin + (i+1)*lineHeight - 5
		colour := "#adbac7"
		if l.typed {
			colour = "#e6edf3"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" xml:space="preserve" textLength="%.1f" lengthAdjust="spacingAndGlyphs">`, margin, y, colour, charWidth*float64(utf8.RuneCountInString(l.text)))
		if rest, ok := strings.CutPrefix(l.text, prompt); ok && l.typed {
			fmt.Fprintf(&b, `<tspan fill="#57ab5a">%s</tspan>%s`, prompt, escaped(rest))
		} else {
			b.WriteString(escaped(l.text))
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
