package find

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	resyntax "regexp/syntax"
	"slices"
	"strings"
)

// A syntax is a kind of regular expressions. Each is translated into RE2's, by which they
// match: that takes time in proportion to a name's length, whatever the expression.
type syntax struct {
	bare    bool   // ( ) | have a meaning as they are, and none behind a backslash
	braces  int    // { }: 0 mean nothing, 1 have a meaning bare, 2 behind a backslash
	quote   string // what has a meaning behind a backslash alone, of + and ?
	newline bool   // a dot matches a newline
	re2     bool   // nothing is translated
}

var syntaxes = map[string]syntax{
	"emacs": {}, "findutils-default": {newline: true},
	"posix-basic": {braces: 2, quote: "+?", newline: true}, "grep": {braces: 2, quote: "+?", newline: true}, "sed": {braces: 2, quote: "+?", newline: true}, "ed": {braces: 2, quote: "+?", newline: true},
	"posix-extended": {bare: true, braces: 1, newline: true}, "posix-egrep": {bare: true, braces: 1, newline: true}, "egrep": {bare: true, braces: 1, newline: true},
	"posix-awk": {bare: true, braces: 1, newline: true}, "gnu-awk": {bare: true, braces: 1, newline: true}, "awk": {bare: true, newline: true},
	"re2": {re2: true},
}

// syntaxNamed returns the syntax with a name.
func syntaxNamed(name string) (syntax, error) {
	s, ok := syntaxes[name]
	if !ok {
		return s, fmt.Errorf("there are the syntaxes %s", strings.Join(slices.Sorted(maps.Keys(syntaxes)), ", "))
	}
	return s, nil
}

// compile returns a function that reports whether all of a text is as an expression says.
func (s syntax) compile(expr string, fold bool) (func(string) bool, error) {
	text := expr
	if !s.re2 {
		var err error
		if text, err = s.translate(expr); err != nil {
			return nil, err
		}
	}
	flags := ""
	if s.newline {
		flags += "s"
	}
	if fold {
		flags += "i"
	}
	if flags != "" {
		flags = "(?" + flags + ")"
	}
	re, err := regexp.Compile(flags + `\A(?:` + text + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("it is no regular expression: %s", reason(err))
	}
	return re.MatchString, nil
}

// reason returns what an error of package regexp says, without the expression.
func reason(err error) string {
	var wrong *resyntax.Error
	if errors.As(err, &wrong) {
		return wrong.Code.String()
	}
	return err.Error()
}

// translate returns an expression in RE2's syntax.
func (s syntax) translate(expr string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; c {
		case '[':
			end := bracketEnd(expr[i:])
			if end == 0 {
				return "", errors.New("a bracket [ is not closed")
			}
			b.WriteString(strings.ReplaceAll(expr[i:i+end], `\`, `\\`))
			i += end - 1
		case '\\':
			if i++; i == len(expr) {
				return "", errors.New("a backslash is its end")
			}
			text, err := s.escaped(expr[i])
			if err != nil {
				return "", err
			}
			b.WriteString(text)
		default:
			meant := true
			switch {
			case strings.IndexByte("()|", c) >= 0:
				meant = s.bare
			case c == '{' || c == '}':
				meant = s.braces == 1
			case c == '+' || c == '?':
				meant = strings.IndexByte(s.quote, c) < 0
			case c == '*' && (b.Len() == 0 || strings.HasSuffix(b.String(), "(")):
				meant = false
			}
			if !meant {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// escaped returns what a backslash and the character behind it are in RE2's syntax.
func (s syntax) escaped(c byte) (string, error) {
	switch {
	case c >= '1' && c <= '9':
		return "", fmt.Errorf(`there is no \%c, as nothing refers to what was found before`, c)
	case strings.IndexByte("()|", c) >= 0 && !s.bare, (c == '{' || c == '}') && s.braces == 2, strings.IndexByte(s.quote, c) >= 0:
		return string(c), nil
	case strings.IndexByte("wWbBsS", c) >= 0:
		return `\` + string(c), nil
	}
	if text, ok := map[byte]string{'<': `\b`, '>': `\b`, '`': `\A`, '\'': `\z`}[c]; ok {
		return text, nil
	}
	return regexp.QuoteMeta(string(c)), nil
}

// bracketEnd returns how long the set in brackets is that a text begins with, or 0.
func bracketEnd(s string) int {
	at := 1
	if at < len(s) && s[at] == '^' {
		at++
	}
	if at < len(s) && s[at] == ']' {
		at++
	}
	for at < len(s) && s[at] != ']' {
		if s[at] == '[' && at+1 < len(s) && strings.IndexByte(":.=", s[at+1]) >= 0 {
			end := strings.Index(s[at+2:], s[at+1:at+2]+"]")
			if end < 0 {
				return 0
			}
			at += 2 + end + 1
		}
		at++
	}
	if at >= len(s) {
		return 0
	}
	return at + 1
}
