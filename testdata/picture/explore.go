package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// exploreRows is how many rows the terminal has that imgfs explore is drawn on.
const exploreRows = 24

// exploreKeys are what is pressed, and what the screen shows then.
var exploreKeys = []struct{ key, shows string }{
	{"", `inodes`},
	{"Enter", `what layer 2 changed`},
	{"Right", ` - src/`},
	{"End", `VERSION`},
	{"Up", `/src/\S+ *$`},
	{"Right", `\n`},
	{"Home", `/src *$`},
}

// explore runs imgfs explore in tmux, and returns the screen with its colours.
func (p *picture) explore() ([]cells, error) {
	socket := filepath.Join(p.home, "tmux")
	tmux := func(args ...string) (string, error) {
		cmd := exec.CommandContext(p.ctx, "tmux", append([]string{"-f", "/dev/null", "-S", socket}, args...)...)
		cmd.Env = p.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("tmux %q: %w\n%s", args, err, out)
		}
		return string(out), err
	}
	if _, err := tmux("new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(exploreRows), "exec imgfs explore "+p.host+"/go:1.27"); err != nil {
		return nil, err
	}
	defer func() { _, _ = tmux("kill-server") }() // an error would be the first one again
	for _, k := range exploreKeys {
		if k.key != "" {
			if _, err := tmux("send-keys", k.key); err != nil {
				return nil, err
			}
		}
		re := regexp.MustCompile(`(?m)` + k.shows)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			screen, err := tmux("capture-pane", "-p")
			if err != nil {
				return nil, err
			}
			if re.MatchString(screen) {
				break
			}
			if time.Now().After(end) {
				return nil, fmt.Errorf("%q: the screen does not match %q:\n%s", k.key, k.shows, screen)
			}
		}
	}
	screen, err := tmux("capture-pane", "-p", "-e")
	if err != nil {
		return nil, err
	}
	screen = strings.ReplaceAll(screen, p.host, shownHost)
	var rows []cells
	for row := range strings.SplitSeq(strings.TrimRight(screen, "\n"), "\n") {
		rows = append(rows, parseCells(row))
	}
	return rows, nil
}

// cells are a row of a screen: texts that look alike.
type cells []cellText

// A cellText is text that looks alike.
type cellText struct {
	text                     string
	fg                       int // -1: the terminal's own
	bold, reverse, underline bool
}

// sgr is how terminals are told how text looks.
var sgr = regexp.MustCompile("\x1b\\[([0-9;]*)m|\x1b\\([0B]|[\x0e\x0f]")

// parseCells reads a row as tmux prints it.
func parseCells(row string) (all cells) {
	look := cellText{fg: -1}
	for row != "" {
		at := sgr.FindStringSubmatchIndex(row)
		text, rest := row, ""
		if at != nil {
			text, rest = row[:at[0]], row[at[1]:]
		}
		if text != "" {
			next := look
			next.text = text
			all = append(all, next)
		}
		if at != nil && at[2] >= 0 {
			look.apply(row[at[2]:at[3]])
		}
		row = rest
	}
	return all
}

// apply does what parameters of SGR say.
func (c *cellText) apply(parameters string) {
	list := strings.Split(parameters, ";")
	for i := 0; i < len(list); i++ {
		n, _ := strconv.Atoi(list[i]) // nothing is 0
		switch {
		case n == 0:
			*c = cellText{fg: -1}
		case n == 1:
			c.bold = true
		case n == 4:
			c.underline = true
		case n == 7:
			c.reverse = true
		case n >= 30 && n <= 37:
			c.fg = n - 30
		case n == 38 && i+2 < len(list):
			c.fg, _ = strconv.Atoi(list[i+2])
			i += 2
		}
	}
}

// palette are the first colours of terminals.
var palette = []string{"#545d68", "#f47067", "#57ab5a", "#e3b341", "#539bf5", "#b083f0", "#39c5cf", "#adbac7"}

// screenSVG draws a screen.
func screenSVG(rows []cells, columns int) string {
	const text, back = "#adbac7", "#1b1f24"
	width := int(charWidth*float64(columns)) + 2*margin
	height := len(rows)*lineHeight + 2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">`+"\n", width, height, width, height)
	b.WriteString("<title>imgfs explore in a terminal</title>\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="%s"/>`+"\n", width, height, back)
	for y, row := range rows {
		x := float64(margin)
		for _, c := range row {
			w := charWidth * float64(utf8.RuneCountInString(c.text))
			fill, top := text, margin+y*lineHeight
			if c.fg >= 0 && c.fg < len(palette) {
				fill = palette[c.fg]
			}
			if c.reverse {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", x, top, w, lineHeight, fill)
				fill = back
			}
			if strings.TrimSpace(c.text) != "" {
				style := ""
				if c.bold {
					style += ` font-weight="bold"`
				}
				if c.underline {
					style += ` text-decoration="underline"`
				}
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="%s"%s xml:space="preserve" textLength="%.1f" lengthAdjust="spacingAndGlyphs">%s</text>`+"\n", x, top+lineHeight-5, fill, style, w, escaped(c.text))
			}
			x += w
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
