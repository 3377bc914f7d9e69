package gnu

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Match reports whether a pattern of the shell's matches all of a name, as fnmatch(3)
// without flags does: * and ? match slashes, and dots at the beginning, as well. A name
// need not be UTF-8; what is none are characters of one byte.
func Match(pattern, name string) bool {
	star, again := -1, 0 // the last * of pattern, and where what follows it was tried last
	p, n := 0, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			star, again = p+1, n
			p++
			continue
		}
		if dp, dn, ok := matchOne(pattern[p:], name[n:]); ok {
			p, n = p+dp, n+dn
			continue
		}
		if star < 0 {
			return false
		}
		_, size := utf8.DecodeRuneInString(name[again:])
		again += size
		p, n = star, again
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne matches the first part of a pattern, which is no *, with the first character
// of a name. It returns their lengths.
func matchOne(pattern, name string) (dp, dn int, ok bool) {
	if pattern == "" {
		return 0, 0, false
	}
	_, dn = utf8.DecodeRuneInString(name)
	switch pattern[0] {
	case '?':
		return 1, dn, true
	case '[':
		if dp, ok, closed := matchBracket(pattern, name[:dn]); closed {
			return dp, dn, ok
		}
	case '\\':
		if len(pattern) == 1 {
			return 0, 0, false
		}
		return 2, 1, pattern[1] == name[0]
	}
	return 1, 1, pattern[0] == name[0]
}

// matchBracket matches the bracket expression at the beginning of a pattern with a
// character, and returns its length. It is not closed if it is no such expression.
func matchBracket(pattern, char string) (length int, ok, closed bool) {
	rest := pattern[1:]
	negated := rest != "" && (rest[0] == '!' || rest[0] == '^')
	if negated {
		rest = rest[1:]
	}
	for first := true; ; first = false {
		switch {
		case rest == "":
			return 0, false, false
		case rest[0] == ']' && !first:
			return len(pattern) - len(rest) + 1, ok != negated, true
		}
		if class, after, found := bracketClass(rest); found {
			r, _ := utf8.DecodeRuneInString(char)
			ok = ok || class(r)
			rest = after
			continue
		}
		from, after := bracketChar(rest)
		to := from
		if len(after) > 1 && after[0] == '-' && after[1] != ']' {
			to, after = bracketChar(after[1:])
		}
		ok = ok || order(from) <= order(char) && order(char) <= order(to)
		rest = after
	}
}

// bracketChar returns the character at the beginning of a bracket expression, and what
// follows it.
func bracketChar(s string) (char, rest string) {
	for _, kind := range []string{".", "="} { // [.x.] and [=x=]
		if name, ok := strings.CutPrefix(s, "["+kind); ok {
			if name, after, ok := strings.Cut(name, kind+"]"); ok && utf8.RuneCountInString(name) == 1 {
				return name, after
			}
		}
	}
	if s[0] == '\\' && len(s) > 1 {
		s = s[1:]
	}
	_, size := utf8.DecodeRuneInString(s)
	return s[:size], s[size:]
}

// order returns a number by which characters of ranges are compared. Bytes that are no
// UTF-8 come behind all that is.
func order(char string) rune {
	r, size := utf8.DecodeRuneInString(char)
	if r == utf8.RuneError && size <= 1 && char != "" {
		return unicode.MaxRune + 1 + rune(char[0])
	}
	return r
}

var classes = map[string]func(rune) bool{
	"alpha": unicode.IsLetter, "digit": func(r rune) bool { return '0' <= r && r <= '9' },
	"alnum": func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) },
	"upper": unicode.IsUpper, "lower": unicode.IsLower, "space": unicode.IsSpace, "cntrl": unicode.IsControl,
	"blank": func(r rune) bool { return r == ' ' || r == '\t' },
	"punct": func(r rune) bool { return unicode.IsPunct(r) || unicode.IsSymbol(r) },
	"graph": func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) }, "print": unicode.IsPrint,
	"xdigit": func(r rune) bool { return strings.ContainsRune("0123456789abcdefABCDEF", r) },
}

// bracketClass returns the class [:NAME:] at the beginning of a bracket expression.
func bracketClass(s string) (class func(rune) bool, rest string, ok bool) {
	name, ok := strings.CutPrefix(s, "[:")
	if !ok {
		return nil, "", false
	}
	name, rest, ok = strings.Cut(name, ":]")
	class, known := classes[name]
	return class, rest, ok && known
}

// MatchTail reports whether one of some patterns matches a path, or what follows one of
// its slashes, as the patterns of --exclude do.
func MatchTail(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if Match(p, path) {
			return true
		}
		for i := 0; i+1 < len(path); i++ {
			if path[i] == '/' && path[i+1] != '/' && Match(p, path[i+1:]) {
				return true
			}
		}
		return false
	})
}
