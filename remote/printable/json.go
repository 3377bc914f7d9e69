package printable

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns a document with \u escapes in place of what acts in its strings.
// To every reader of JSON it is equal to the one given: a byte that is no UTF-8
// is U+FFFD to them. Outside strings a document has no such thing but white
// space, of which newlines stay, a tab becomes four spaces, and carriage returns
// go.
func JSON(document []byte) []byte {
	if Harmless(string(document)) {
		return document
	}
	return []byte(rewrite(string(document), func(b *strings.Builder, r rune, was string) {
		switch high, low := utf16.EncodeRune(r); {
		case was == "\n":
			b.WriteString(was)
		case was == "\t":
			b.WriteString("    ")
		case was == "\r":
		case high != utf8.RuneError:
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}))
}
