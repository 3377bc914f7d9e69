package tree

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/remote/printable"
)

// A namer writes names.
type namer struct {
	quoted   bool // in double quotes
	raw      bool // as they are
	wide     bool // in the characters of UTF-8; if not, of ASCII, as a shell reads them
	terminal bool
}

// harmless returns a text as it is, or on a terminal so that it does nothing there.
func (n *namer) harmless(s string) string { return entry.Name(s, n.terminal) }

// print returns a name as it is printed.
func (n *namer) print(name string) string {
	text := name
	switch {
	case n.raw:
		text = n.harmless(name)
	case n.wide:
		text = n.inUTF8(name)
	default:
		text = n.inASCII(name)
	}
	if n.quoted {
		return `"` + text + `"`
	}
	return text
}

// inUTF8 writes in octal what does not show.
func (n *namer) inUTF8(name string) string {
	var b strings.Builder
	for i, size := 0, 0; i < len(name); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(name[i:])
		part := name[i : i+size]
		if (r != utf8.RuneError || size > 1) && shows(r) && (!n.terminal || printable.Harmless(part)) {
			b.WriteString(part)
			continue
		}
		for _, c := range []byte(part) {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

// shows reports whether a C library takes a character for one that shows: that are also
// some that only turn or hide others.
func shows(r rune) bool {
	return unicode.IsPrint(r) || unicode.In(r, unicode.Cf, unicode.Zs, unicode.Co)
}

// inASCII writes what is not ASCII, or not to be seen, as C does, and puts a backslash
// before backslashes, and before spaces outside of quotes or quotes within.
func (n *namer) inASCII(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= '\a' && c <= '\r':
			b.WriteByte('\\')
			b.WriteByte("abtnvfr"[c-'\a'])
		case c == '\\', c == '"' && n.quoted, c == ' ' && !n.quoted:
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= ' ' && c < 0x7f:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}
