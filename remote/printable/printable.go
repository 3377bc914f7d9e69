// Package printable prints what strangers have written: members of an image's
// config, names of files, answers of registries, attributes of a mount. Such
// text can hold commands to a terminal, runes that hide or turn round what
// stands beside them, lines that look like another's, and bytes that are no
// UTF-8. Whatever imgfs prints goes through one of the functions here, which
// make all of that visible and leave other text as it is:
//
//	printable.Line("no \x1b[31m such tag\n") // no \x1b[31m such tag
//	printable.Name("a\u202eb")               // $'a\342\200\256b'
//	printable.Word("it's")                   // 'it'\''s'
//	printable.JSON([]byte("\"\u009b\""))     // "\u009b"
//
// The contents of files are not printed but copied, and have no place here.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// braille is a rune that is printable by its category, and empty.
const braille = '\u2800'

// acts reports whether a rune may act on a terminal, or is not to be seen: all
// controls, format characters such as those that turn the direction of text,
// separators of lines, spaces other than the usual one, fillers, selectors of
// variants, and what Unicode gives no meaning to.
func acts(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return !unicode.IsPrint(r) || r == braille || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Harmless reports whether a text is UTF-8 without anything that may act on a
// terminal or that is not to be seen.
func Harmless(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, acts)
}

// rewrite returns s with write's text in place of each rune that acts, and of
// each byte that is not part of one. That byte comes as utf8.RuneError, and
// was is what stood there.
func rewrite(s string, write func(b *strings.Builder, r rune, was string)) string {
	if Harmless(s) {
		return s
	}
	var b strings.Builder
	for i, n := 0, 0; i < len(s); i += n {
		var r rune
		r, n = utf8.DecodeRuneInString(s[i:])
		if was := s[i : i+n]; r == utf8.RuneError && n == 1 || acts(r) {
			write(&b, r, was)
		} else {
			b.WriteString(was)
		}
	}
	return b.String()
}

// Text returns s with escapes as in Go in place of what acts: \n, \x1b, \u202e,
// and \xff for a byte that is no UTF-8. Backslashes stay single, so that what is
// quoted already, or comes from Text, does not change. That is for sentences: a
// name that has to be told from every other is for Name.
func Text(s string) string {
	return rewrite(s, func(b *strings.Builder, r rune, was string) {
		if r == utf8.RuneError {
			fmt.Fprintf(b, `\x%02x`, was[0])
			return
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	})
}

// maxLine and maxCell are how many bytes of a stranger's text are printed.
const (
	maxLine = 4 << 10
	maxCell = 512
)

// Line returns Text(s), without space at its ends, as what is printed in one
// line. Of a text of more than 4 KiB it has the beginning.
func Line(s string) string {
	s = strings.TrimSpace(s)
	if more := len(s) - maxLine; more > 0 {
		return Text(Cut(s, maxLine)) + fmt.Sprintf("… (%d more bytes)", more)
	}
	return Text(s)
}

// Cut returns the first n bytes of s, or fewer, so as not to part a rune.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n]
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		if tail := s[len(s)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRuneInString(tail) {
				return s[:len(s)-n]
			}
			break
		}
	}
	return s
}

// Name returns a name as it is, unless something of it acts or could not be
// told from what stands beside it, as a space at its end. Then it is quoted as
// GNU ls does, so that a shell gives the name back: $'two\nlines'. As a name that
// begins with $' is quoted, too, no two names are printed alike.
func Name(s string) string {
	if Harmless(s) && s != "" && s == strings.Trim(s, " ") && !strings.Contains(s, "  ") && !strings.HasPrefix(s, "$'") {
		return s
	}
	return dollarQuote(s)
}

// Cell is Name for a column of a table: of a text of more than 512 bytes it has
// the beginning, and nothing for nothing.
func Cell(s string) string {
	switch {
	case s == "":
		return ""
	case len(s) > maxCell:
		return Name(Cut(s, maxCell)) + "…"
	}
	return Name(s)
}

// dollarQuote quotes a text as shells take it since POSIX.1-2024. Bytes are
// octal as in ls: then it does not matter what the shell's locale is.
func dollarQuote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s)
	return "$'" + rewrite(s, func(b *strings.Builder, _ rune, was string) {
		if i := strings.Index("\t\n\r", was); i >= 0 {
			b.WriteString([]string{`\t`, `\n`, `\r`}[i])
			return
		}
		for i := range len(was) {
			fmt.Fprintf(b, `\%03o`, was[i])
		}
	}) + "'"
}

// Word returns a path, or the name of an image, for a command line that
// somebody copies into a shell: quoted if anything in it means something to the
// shell, and with ./ before a hyphen at its beginning, as it is no flag.
func Word(s string) string {
	if strings.HasPrefix(s, "-") {
		s = "./" + s
	}
	switch {
	case !Harmless(s):
		return dollarQuote(s)
	case s != "" && !strings.ContainsAny(s, " !\"#$&'()*;<>?[\\]^`{|}~"):
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
