package toc

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// text returns the next value, a string, without its escapes. The bytes are valid until
// the next token. It reports whether bytes of it may be lost: something in it is
// U+FFFD, which programs write for what is not UTF-8, or is not UTF-8 itself.
func (l *lexer) text() (b []byte, lost bool, err error) {
	if err := l.take('"'); err != nil {
		return nil, false, err
	}
	start, wide, escaped := l.pos, false, false
	for i := l.pos; ; {
		i += plain(l.buf[i:])
		if i+1 >= len(l.buf) { // with an escape's second byte
			l.pos = i
			if i < len(l.buf) && l.buf[i] == '"' {
				break
			}
			if err := l.more(start); err != nil {
				return nil, false, unexpected(err)
			}
			start, i = 0, l.pos
			continue
		}
		l.pos = i
		switch c := l.buf[i]; {
		case c == '\\':
			escaped = true
			i += 2
			continue
		case c >= utf8.RuneSelf:
			wide = true
			i++
			continue
		case c < ' ':
			return nil, false, l.refuse("control character in a string")
		case c != '"':
			i++
			continue
		}
		break
	}
	b = l.buf[start:l.pos]
	l.pos++
	if escaped {
		if b, err = l.unescape(b); err != nil {
			return nil, false, err
		}
		wide = true
	}
	return b, wide && (!utf8.Valid(b) || bytes.Contains(b, []byte("\uFFFD"))), nil
}

// plain returns how many bytes b begins with that stand for themselves in a string, or
// fewer.
func plain(b []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(b); n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, slash := x^ones*'"', x^ones*'\\'
		// A borrow makes bits above the first odd byte wrong, and none below.
		if odd := ((x - ones*' ') | (quote - ones) | (slash - ones) | x) & tops; odd != 0 {
			return n + bits.TrailingZeros64(odd)/8
		}
	}
	for ; n < len(b); n++ {
		if c := b[n]; c == '"' || c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			break
		}
	}
	return n
}

// unescape returns a string without its escapes.
func (l *lexer) unescape(b []byte) ([]byte, error) {
	to := l.unescaped[:0]
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			to = append(to, b...)
			break
		}
		to = append(to, b[:i]...)
		c := b[i+1] // text saw that it is there
		b = b[i+2:]
		switch c {
		case '"', '\\', '/':
			to = append(to, c)
		case 'b':
			to = append(to, '\b')
		case 'f':
			to = append(to, '\f')
		case 'n':
			to = append(to, '\n')
		case 'r':
			to = append(to, '\r')
		case 't':
			to = append(to, '\t')
		case 'u':
			r, n := unicodeEscape(b)
			if n == 0 {
				return nil, l.refuse("escape without four digits")
			}
			to = utf8.AppendRune(to, r)
			b = b[n:]
		default:
			return nil, l.refuse("unknown escape in a string")
		}
	}
	l.unescaped = to
	return to, nil
}

// unicodeEscape reads what is behind \u: four digits, or with those another escape for
// the other half of a surrogate pair. It returns how many bytes it took, 0 for none.
func unicodeEscape(b []byte) (rune, int) {
	r, ok := fourDigits(b)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 4
	}
	if len(b) >= 6 && b[4] == '\\' && b[5] == 'u' {
		if low, ok := fourDigits(b[6:]); ok {
			if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
				return both, 10
			}
		}
	}
	return utf8.RuneError, 4
}

func fourDigits(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
