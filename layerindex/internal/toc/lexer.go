package toc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	lexerBuffer = 64 << 10
	// maxDepth is how deep a value may be nested that nothing is known about.
	maxDepth = 32
)

// A lexer reads JSON (RFC 8259) from a stream, one token after the other. It keeps one
// token in memory, of at most max bytes.
type lexer struct {
	src io.Reader
	max int    // bytes of a token
	buf []byte // what is read of src and still of use
	pos int    // in buf, of the next byte
	off int64  // of buf[0] in the stream
	// unescaped is the memory of the last string that had escapes.
	unescaped []byte
}

// A syntaxError is about what a text has at an offset.
type syntaxError struct {
	off int64
	msg string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("JSON at byte %d: %s", e.off, e.msg) }

func (l *lexer) refuse(msg string) error { return &syntaxError{l.off + int64(l.pos), msg} }

// more reads more of the stream behind buf, of which it drops what is before keep. It
// returns io.EOF at the end of the stream.
func (l *lexer) more(keep int) error {
	l.buf = append(l.buf[:0], l.buf[keep:]...)
	l.pos -= keep
	l.off += int64(keep)
	if len(l.buf) >= l.max {
		return l.refuse(fmt.Sprintf("value of more than %d bytes", l.max))
	}
	if len(l.buf) == cap(l.buf) {
		grown := make([]byte, len(l.buf), max(lexerBuffer, 2*len(l.buf)))
		copy(grown, l.buf)
		l.buf = grown
	}
	for range 100 {
		n, err := l.src.Read(l.buf[len(l.buf):cap(l.buf)])
		l.buf = l.buf[:len(l.buf)+n]
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// next returns the next byte that is no white space, and stays before it.
func (l *lexer) next() (byte, error) {
	for {
		for ; l.pos < len(l.buf); l.pos++ {
			switch c := l.buf[l.pos]; c {
			case ' ', '\t', '\n', '\r':
			default:
				return c, nil
			}
		}
		if err := l.more(l.pos); err != nil {
			return 0, err
		}
	}
}

// must is next where the text cannot end.
func (l *lexer) must() (byte, error) {
	c, err := l.next()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return c, err
}

// take goes past a byte that must come next.
func (l *lexer) take(want byte) error {
	c, err := l.must()
	if err != nil {
		return err
	}
	if c != want {
		return l.refuse(fmt.Sprintf("%q where %q should be", c, want))
	}
	l.pos++
	return nil
}

// begin goes past the bracket that a list or an object begins with. It returns false
// for null.
func (l *lexer) begin(bracket byte) (bool, error) {
	c, err := l.must()
	if err != nil {
		return false, err
	}
	if c == 'n' {
		return false, l.word("null")
	}
	return true, l.take(bracket)
}

// another reports whether there is another element before the closing bracket, and
// goes past the comma or the bracket.
func (l *lexer) another(first bool, bracket byte) (bool, error) {
	c, err := l.must()
	if err != nil {
		return false, err
	}
	switch {
	case c == bracket:
		l.pos++
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, l.refuse(fmt.Sprintf("%q between elements", c))
	}
	l.pos++
	if c, err = l.must(); err == nil && c == bracket {
		err = l.refuse("no element behind a comma")
	}
	return true, err
}

// key returns the name of the next member of an object, and goes past the colon. The
// bytes are valid until the next token.
func (l *lexer) key() ([]byte, error) {
	b, _, err := l.text()
	if err != nil {
		return nil, err
	}
	// Going past the colon may move the buffer.
	if l.pos < len(l.buf) && l.buf[l.pos] == ':' {
		l.pos++
		return b, nil
	}
	l.unescaped = append(l.unescaped[:0], b...)
	return l.unescaped, l.take(':')
}

// word goes past null, true or false.
func (l *lexer) word(w string) error {
	for i := range len(w) {
		if l.pos == len(l.buf) {
			if err := l.more(l.pos); err != nil {
				return unexpected(err)
			}
		}
		if l.buf[l.pos] != w[i] {
			return l.refuse("no value")
		}
		l.pos++
	}
	return nil
}

// null goes past null, if that comes next.
func (l *lexer) null() (bool, error) {
	c, err := l.must()
	if err != nil || c != 'n' {
		return false, err
	}
	return true, l.word("null")
}

// number returns the next value, a whole number in the range of an int64.
func (l *lexer) number() (int64, error) {
	c, err := l.must()
	if err != nil {
		return 0, err
	}
	negative := c == '-'
	if negative {
		l.pos++
	}
	var n uint64
	digits := 0
	for ; ; l.pos++ {
		if l.pos == len(l.buf) {
			if err := l.more(l.pos); err != nil {
				return 0, unexpected(err)
			}
		}
		c = l.buf[l.pos]
		if c < '0' || c > '9' {
			break
		}
		if digits++; digits > 1 && n == 0 {
			return 0, l.refuse("number with a zero in front")
		}
		if n > math.MaxUint64/20 {
			return 0, l.refuse("number out of range")
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case digits == 0, c == '.', c == 'e', c == 'E':
		return 0, l.refuse("not a whole number")
	case negative && n <= 1<<63:
		return -int64(n), nil
	case negative || n > math.MaxInt64:
		return 0, l.refuse("number out of range")
	}
	return int64(n), nil
}

// skip goes past a value of any kind.
func (l *lexer) skip(depth int) error {
	c, err := l.must()
	if err != nil {
		return err
	}
	switch c {
	case '"':
		_, _, err := l.text()
		return err
	case 't':
		return l.word("true")
	case 'f':
		return l.word("false")
	case 'n':
		return l.word("null")
	case '[', '{':
		if depth == maxDepth {
			return l.refuse(fmt.Sprintf("nested deeper than %d", maxDepth))
		}
		l.pos++
		return l.skipAll(c+2, depth+1) // in ASCII ] and } are two behind [ and {
	}
	return l.skipNumber(c)
}

// skipAll goes past the elements of a list or an object.
func (l *lexer) skipAll(bracket byte, depth int) error {
	for first := true; ; first = false {
		more, err := l.another(first, bracket)
		if err != nil || !more {
			return err
		}
		if bracket == '}' {
			if _, err := l.key(); err != nil {
				return err
			}
		}
		if err := l.skip(depth); err != nil {
			return err
		}
	}
}

// skipNumber goes past a number of any kind.
func (l *lexer) skipNumber(c byte) error {
	if c != '-' && (c < '0' || c > '9') {
		return l.refuse("no value")
	}
	start := l.pos
	for {
		for ; l.pos < len(l.buf); l.pos++ {
			switch c := l.buf[l.pos]; {
			case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
				continue
			}
			if !isNumber(l.buf[start:l.pos]) {
				return l.refuse("malformed number")
			}
			return nil
		}
		if err := l.more(start); err != nil {
			return unexpected(err)
		}
		start = 0
	}
}

// isNumber reports whether b is a number: RFC 8259, 6.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	b = bytes.TrimPrefix(b, []byte("-"))
	zero := len(b) > 1 && b[0] == '0' && b[1] >= '0' && b[1] <= '9'
	if zero || !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		if b = b[1:]; !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// end makes sure that nothing but white space is left.
func (l *lexer) end() error {
	c, err := l.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return l.refuse(fmt.Sprintf("%q behind the end", c))
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
