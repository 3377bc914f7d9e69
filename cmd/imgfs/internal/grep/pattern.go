package grep

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// A pattern is what lines are matched with. It is safe for concurrent use.
type pattern struct {
	// literals are such that every match contains one of them. nil: there are none such.
	literals []literal
	// exact says that what is one of literals is a match, and nothing else is.
	exact bool
	// any matches a line, in which a word may be its first group; next finds one behind
	// the first character of a text. They are nil if exact.
	any, next  *regexp.Regexp
	word, line bool
	nothing    bool // matches
}

// wordRune is a character of a word, in a class.
const wordRune = `_\pL\pM\pN`

// Compile makes a pattern of those that the flags and files give, each of which may be
// several on lines of their own.
func (o *Options) compile(patterns []string) (*pattern, error) {
	var all []string
	for _, p := range patterns {
		all = append(all, strings.Split(p, "\n")...)
	}
	p := &pattern{word: o.word && !o.line, line: o.line, nothing: len(all) == 0}
	if p.nothing {
		return p, nil
	}
	if o.fixed && !o.ignoreCase {
		p.exact = true
		for _, text := range all {
			p.literals = append(p.literals, literal{text: []byte(text)})
		}
		if len(all) <= maxLiterals || slices.ContainsFunc(all, func(text string) bool { return !utf8.ValidString(text) }) {
			return p, nil
		}
	}
	text, err := o.expression(all)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil { // each of them alone is right
		return nil, cli.Usagef("grep: %v", err)
	}
	p.literals = literalsOf(tree.Simplify())
	if p.exact = isExact(tree); p.exact {
		return p, nil
	}
	switch {
	case p.line:
		p.any, err = regexp.Compile("^(?:" + text + ")$")
	case p.word:
		p.next, err = regexp.Compile("[^" + wordRune + "](" + text + ")(?:[^" + wordRune + "]|$)")
		if err == nil {
			p.any, err = regexp.Compile("(?:^|[^" + wordRune + "])(" + text + ")(?:[^" + wordRune + "]|$)")
		}
	default:
		p.any, err = regexp.Compile(text)
	}
	if err != nil {
		return nil, cli.Usagef("grep: %v", err)
	}
	p.any.Longest()
	if p.next != nil {
		p.next.Longest()
	}
	return p, nil
}

// expression returns one expression of RE2 for some patterns.
func (o *Options) expression(patterns []string) (string, error) {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		if texts[i] = p; !utf8.ValidString(p) {
			return "", cli.WithHint(cli.Usagef("grep: the pattern %q is no UTF-8", p), "-F takes any bytes, without -i")
		}
		if o.fixed {
			texts[i] = regexp.QuoteMeta(p)
		} else if plain := strings.ReplaceAll(p, `\\`, ""); strings.Contains(plain, `\<`) || strings.Contains(plain, `\>`) {
			return "", patternError(p, errors.New(`\< and \> are no beginning of a word, and no end`))
		} else if _, err := syntax.Parse(p, syntax.Perl); err != nil {
			return "", patternError(p, err)
		}
	}
	text := texts[0]
	if len(texts) > 1 {
		text = "(?:" + strings.Join(texts, ")|(?:") + ")"
	}
	if o.ignoreCase {
		text = "(?i:" + text + ")"
	}
	return text, nil
}

// patternError explains what is wrong with a pattern.
func patternError(p string, err error) error {
	reason := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	failed := cli.Usagef("grep: %s: %s", p, reason)
	switch {
	case strings.HasPrefix(reason, `\<`):
		return cli.WithHint(failed, `patterns are RE2's: \b is the beginning or end of a word, and -w takes whole words`)
	case strings.Contains(reason, `invalid escape sequence`), strings.Contains(p, "(?"):
		return cli.WithHint(failed, "patterns are RE2's, which has no backreferences and does not look around; -F takes text")
	}
	return cli.WithHint(failed, fmt.Sprintf("-F takes %q as text", p))
}

// isExact reports whether an expression is a text.
func isExact(x *syntax.Regexp) bool {
	return x.Op == syntax.OpLiteral && x.Flags&syntax.FoldCase == 0
}

// matches reports whether a line matches.
func (p *pattern) matches(line []byte) bool {
	if p.nothing || p.literals != nil && !p.mayMatch(line) {
		return false
	}
	if p.exact {
		var known [maxLiterals]int
		_, _, ok := p.findExact(line, 0, &known)
		return ok
	}
	return p.any.Match(line)
}

// mayMatch reports whether one of the literals is in a line.
func (p *pattern) mayMatch(line []byte) bool {
	for i := range p.literals {
		if p.literals[i].index(line) >= 0 {
			return true
		}
	}
	return false
}

// all returns where in a line the matches are that are not empty, and do not overlap.
func (p *pattern) all(line []byte) (found [][2]int) {
	add := func(from, to int) {
		if from < to {
			found = append(found, [2]int{from, to})
		}
	}
	switch {
	case p.nothing:
	case p.exact:
		var known [maxLiterals]int
		for at := 0; at <= len(line); {
			from, to, ok := p.findExact(line, at, &known)
			if !ok {
				break
			}
			add(from, to)
			at = max(to, from+1)
		}
	case p.word:
		at := 0
		for m := p.any.FindSubmatchIndex(line); m != nil; {
			from, to := at+m[2], at+m[3]
			add(from, to)
			// The character before what comes next decides, too, whether that is a word.
			if to = max(to, from+1); to > len(line) {
				break
			}
			_, size := utf8.DecodeLastRune(line[:to])
			at = to - size
			m = p.next.FindSubmatchIndex(line[at:])
		}
	default:
		for _, m := range p.any.FindAllIndex(line, -1) {
			add(m[0], m[1])
		}
	}
	return found
}

// findExact returns the first match of an exact pattern at or behind a place, and of
// those the longest one. known is where each literal is next, and 1, or 0.
func (p *pattern) findExact(line []byte, at int, known *[maxLiterals]int) (from, to int, ok bool) {
	if p.line {
		for i := range p.literals {
			if bytes.Equal(line, p.literals[i].text) {
				return 0, len(line), at == 0
			}
		}
		return 0, 0, false
	}
	for ; at <= len(line); at = from + 1 {
		from = -1
		for i := range p.literals {
			text := p.literals[i].text
			place := p.nextLiteral(line, i, at, known)
			if place > len(line) || from >= 0 && place > from {
				continue
			}
			if place < from || from < 0 {
				from, to = place, -1
			}
			if end := from + len(text); end > to && (!p.word || isWord(line, from, end)) {
				to = end
			}
		}
		if from < 0 {
			return 0, 0, false
		}
		if to >= 0 {
			return from, to, true
		}
	}
	return 0, 0, false
}

// nextLiteral returns where a literal is at or behind a place, or more than the length of
// the line.
func (p *pattern) nextLiteral(line []byte, i, at int, known *[maxLiterals]int) int {
	if i < maxLiterals && known[i] > at {
		return known[i] - 1
	}
	place := len(line) + 1
	if k := bytes.Index(line[at:], p.literals[i].text); k >= 0 {
		place = at + k
	}
	if i < maxLiterals {
		known[i] = place + 1
	}
	return place
}

// isWord reports whether what stands before and behind a part of a line is in no word.
func isWord(line []byte, from, to int) bool {
	before, n := utf8.DecodeLastRune(line[:from])
	behind, m := utf8.DecodeRune(line[to:])
	return !(n > 0 && inWord(before)) && !(m > 0 && inWord(behind))
}

func inWord(r rune) bool {
	return r == '_' || unicode.In(r, unicode.L, unicode.M, unicode.N)
}
