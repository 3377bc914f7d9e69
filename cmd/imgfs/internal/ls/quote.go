package ls

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/mattn/go-runewidth"
)

// A quoting is a way to write names.
type quoting int

const (
	literal      quoting = iota
	shell                // as a shell reads it, if something in it means something to a shell
	shellAlways          // with quotes in any case
	shellEscape          // shell, and what acts on a terminal as in $'\033'
	escapeAlways         // shellAlways, likewise
	cQuoted              // "…", as in C
	escaped              // as in C, without quotes
)

var quotings = map[string]quoting{"literal": literal, "shell": shell, "shell-always": shellAlways, "shell-escape": shellEscape,
	"shell-escape-always": escapeAlways, "c": cQuoted, "escape": escaped}

// A quoter writes names.
type quoter struct {
	quoting
	mark bool   // a question mark for what acts on a terminal, if the quoting has no better way
	also string // characters that are quoted, too
}

// quote returns a name as it is printed, and whether it is quoted: it is another text
// than the name, or stands in quotes.
func (q *quoter) quote(name string) (text string, quoted bool) {
	switch q.quoting {
	case cQuoted:
		return q.inC(name, `"`), true
	case escaped:
		text = q.inC(name, "")
		return text, text != name
	case literal:
		text = name
	case shell, shellEscape:
		if text = name; q.needsShell(name) {
			text = q.inShell(name)
		}
	default:
		text = q.inShell(name)
	}
	quoted = text != name
	if q.mark {
		text = marked(text)
	}
	return text, quoted
}

// plain reports whether a name has only characters that mean nothing anywhere.
func plain(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c >= utf8.RuneSelf || !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || strings.IndexByte("-_./+,%", c) >= 0) {
			return false
		}
	}
	return true
}

// marked returns s with a question mark for each rune that acts on a terminal, and for
// each byte that is part of none.
func marked(s string) string {
	if plain(s) || printable.Harmless(s) {
		return s
	}
	var b strings.Builder
	for i, n := 0, 0; i < len(s); i += n {
		_, n = utf8.DecodeRuneInString(s[i:])
		if printable.Harmless(s[i : i+n]) {
			b.WriteString(s[i : i+n])
		} else {
			b.WriteByte('?')
		}
	}
	return b.String()
}

// inC writes a name as C does, with a quote at both ends.
func (q *quoter) inC(name, quote string) string {
	if quote == "" && q.also == "" && plain(name) {
		return name
	}
	var b strings.Builder
	b.WriteString(quote)
	for i, n := 0, 0; i < len(name); i += n {
		_, n = utf8.DecodeRuneInString(name[i:])
		switch part := name[i : i+n]; {
		case part == `\`, part == quote, n == 1 && strings.Contains(q.also, part):
			b.WriteString(`\` + part)
		case printable.Harmless(part):
			b.WriteString(part)
		default:
			writeEscapes(&b, part)
		}
	}
	b.WriteString(quote)
	return b.String()
}

// writeEscapes writes a rune that acts, or a byte that is none, as C does.
func writeEscapes(b *strings.Builder, part string) {
	const letters = "abtnvfr" // from \a, which is 7, on
	for i := range len(part) {
		if c := part[i]; c >= 7 && c < 7+byte(len(letters)) {
			b.WriteString(`\` + letters[c-7:c-6])
		} else {
			fmt.Fprintf(b, `\%03o`, c)
		}
	}
}

// needsShell reports whether a name has to be quoted for a shell.
func (q *quoter) needsShell(name string) bool {
	if name == "" || name == "{" || name == "}" || name[0] == '~' || name[0] == '#' || strings.ContainsAny(name, q.also+" !\"$&'()*;<=>?[\\^`|\t\n\r") {
		return true
	}
	return q.quoting == shellEscape && !plain(name) && !printable.Harmless(name)
}

// inShell quotes a name for a shell: in single quotes, or in double ones if it has
// single ones and nothing that means something within double ones.
func (q *quoter) inShell(name string) string {
	const inDouble = " '%+,-./:]_"
	if strings.Contains(name, "'") && !strings.ContainsFunc(name, func(r rune) bool {
		word := r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) || r >= utf8.RuneSelf && printable.Harmless(string(r))
		return !word && !strings.ContainsRune(inDouble, r)
	}) {
		return `"` + name + `"`
	}
	escape := q.quoting == shellEscape || q.quoting == escapeAlways
	var b strings.Builder
	b.WriteByte('\'')
	dollar := false // within $'
	for i, n := 0, 0; i < len(name); i += n {
		_, n = utf8.DecodeRuneInString(name[i:])
		part := name[i : i+n]
		acts := escape && !printable.Harmless(part)
		switch {
		case acts && !dollar:
			b.WriteString(`'$'`)
		case dollar && !acts && part != "'":
			b.WriteString("''")
		}
		switch {
		case acts:
			writeEscapes(&b, part)
		case part == "'":
			b.WriteString(`'\''`)
		default:
			b.WriteString(part)
		}
		dollar = acts
	}
	b.WriteByte('\'')
	return b.String()
}

// columnsOf are how many columns runes take, whatever the locale.
var columnsOf = &runewidth.Condition{}

// width returns how many columns a text takes on a terminal.
func width(s string) int {
	if plain(s) {
		return len(s)
	}
	w := 0
	for i, n := 0, 0; i < len(s); i += n {
		var r rune
		switch r, n = utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && n == 1:
			w++
		case r < utf8.RuneSelf:
			if r >= ' ' && r != 0x7f {
				w++
			}
		default:
			w += columnsOf.RuneWidth(r)
		}
	}
	return w
}

// Quote quotes a name for a shell so that it does nothing on a terminal: if it has to be
// quoted, or always.
func Quote(name string, always bool) string {
	q := quoter{quoting: shellEscape}
	if always {
		q.quoting = escapeAlways
	}
	text, _ := q.quote(name)
	return text
}
