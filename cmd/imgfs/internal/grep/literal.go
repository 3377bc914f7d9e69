package grep

import (
	"bytes"
	"regexp/syntax"
	"strings"
)

// A literal is text that matches contain. If fold is set it is ASCII in lower case, and
// the text may be in upper case as well.
type literal struct {
	text []byte
	fold bool
}

// maxLiterals is how many literals are looked for, one after the other. More are no
// faster than an expression.
const maxLiterals = 16

// literalsOf returns literals of which every match of an expression contains one, or nil.
func literalsOf(x *syntax.Regexp) []literal {
	switch x.Op {
	case syntax.OpLiteral:
		return literalOf(x)
	case syntax.OpCapture, syntax.OpPlus:
		return literalsOf(x.Sub[0])
	case syntax.OpRepeat:
		if x.Min > 0 {
			return literalsOf(x.Sub[0])
		}
	case syntax.OpConcat:
		var best []literal
		for _, sub := range x.Sub {
			if found := literalsOf(sub); better(found, best) {
				best = found
			}
		}
		return best
	case syntax.OpAlternate:
		var all []literal
		for _, sub := range x.Sub {
			found := literalsOf(sub)
			if all = append(all, found...); found == nil || len(all) > maxLiterals {
				return nil
			}
		}
		return all
	}
	return nil
}

// better reports whether some literals are rarer than others.
func better(a, b []literal) bool {
	if a == nil || b == nil {
		return a != nil
	}
	return shortest(a) > shortest(b) || shortest(a) == shortest(b) && len(a) < len(b)
}

func shortest(all []literal) int {
	n := len(all[0].text)
	for _, l := range all {
		n = min(n, len(l.text))
	}
	return n
}

// literalOf returns the longest part of a literal expression that can be looked for. k and
// s have other upper cases than K and S: U+212A and U+017F.
func literalOf(x *syntax.Regexp) []literal {
	text := string(x.Rune)
	if x.Flags&syntax.FoldCase == 0 {
		return []literal{{text: []byte(text)}}
	}
	best := ""
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r >= 0x80 || strings.ContainsRune("KkSs", r) }) {
		if len(part) > len(best) {
			best = strings.ToLower(part)
		}
	}
	if best == "" {
		return nil
	}
	return []literal{{text: []byte(best), fold: true}}
}

// index returns where a text has the literal first, or -1.
func (l *literal) index(b []byte) int {
	if !l.fold {
		return bytes.Index(b, l.text)
	}
	rare := l.rarest()
	low := l.text[rare]
	up := upper(low)
	// The next place of either case, at or behind at.
	nextLow, nextUp := -1, -1
	for at := rare; at <= len(b)-(len(l.text)-rare); {
		nextLow, nextUp = next(b, low, at, nextLow), next(b, up, at, nextUp)
		i := min(nextLow, nextUp)
		if i > len(b)-(len(l.text)-rare) {
			return -1
		}
		if from := i - rare; l.at(b[from:]) {
			return from
		}
		at = i + 1
	}
	return -1
}

// next returns the first place of a byte at or behind at, or one behind all. known is an
// answer for an earlier place, or -1.
func next(b []byte, c byte, at, known int) int {
	if known >= at {
		return known
	}
	i := bytes.IndexByte(b[at:], c)
	if i < 0 {
		return len(b)
	}
	return at + i
}

// at reports whether a text begins with the literal in any case.
func (l *literal) at(b []byte) bool {
	for i, c := range l.text {
		if b[i] != c && b[i] != upper(c) {
			return false
		}
	}
	return true
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// usual are bytes of text, the usual ones first.
const usual = " etaoinrslcdupmhg_.-,/=:fbyvw0123456789kxjqz"

// rarest returns the place of the byte that is rarest in text.
func (l *literal) rarest() (place int) {
	most := -1
	for i, c := range l.text {
		rank := strings.IndexByte(usual, c)
		if rank < 0 {
			rank = len(usual)
		}
		if rank > most {
			place, most = i, rank
		}
	}
	return place
}
