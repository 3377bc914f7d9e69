package find

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"golang.org/x/sys/unix"
)

// A format is the argument of -printf: texts, and what stands for a property of a file.
type format []piece

// A piece is a text, or a property of a file with the width that it takes.
type piece struct {
	text  string
	value func(f *file) string // nil: the text
	flags string
	width int
	limit int // of a text, in bytes; -1: none
	octal bool
	plain bool // a number in decimal
	stop  bool // \c: nothing is printed any more
}

// escapes are the letters behind a backslash.
var escapes = map[byte]byte{'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v', '\\': '\\'}

// maxWidth is how wide a format may make a property.
const maxWidth = 1 << 16

// parseFormat reads the argument of -printf.
func parseFormat(s string) (format, error) {
	var all format
	var text []byte
	for s != "" {
		c, rest := s[0], s[1:]
		switch {
		case c == '\\':
			if strings.HasPrefix(rest, "c") {
				return append(all, piece{text: string(text)}, piece{stop: true}), nil
			}
			char, n, err := unescape(rest)
			if err != nil {
				return nil, err
			}
			text, s = append(text, char), rest[n:]
		case c == '%' && strings.HasPrefix(rest, "%"):
			text, s = append(text, '%'), rest[1:]
		case c == '%':
			p, n, err := parseDirective(rest)
			if err != nil {
				return nil, err
			}
			all, text, s = append(all, piece{text: string(text)}, p), nil, rest[n:]
		default:
			text, s = append(text, c), rest
		}
	}
	return append(all, piece{text: string(text)}), nil
}

// unescape reads what stands behind a backslash.
func unescape(s string) (c byte, n int, err error) {
	for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
		c = c<<3 | (s[n] - '0')
		n++
	}
	if n > 0 {
		return c, n, nil
	}
	if s == "" {
		return 0, 0, fmt.Errorf(`a \ is its end`)
	}
	c, ok := escapes[s[0]]
	if !ok {
		return 0, 0, fmt.Errorf(`there is no \%c; there are \n, \t, \0 and others of printf(1)`, s[0])
	}
	return c, 1, nil
}

// parseDirective reads what stands behind a per cent sign.
func parseDirective(s string) (p piece, n int, err error) {
	p.limit = -1
	digits := func() int {
		from := n
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		v, err := strconv.ParseUint(s[from:n], 10, 31)
		if err != nil && n > from {
			return maxWidth + 1
		}
		return int(v)
	}
	n = len(s) - len(strings.TrimLeft(s, "-+ #0"))
	p.flags = s[:n]
	p.width = digits()
	if n < len(s) && s[n] == '.' {
		n++
		p.limit = digits()
	}
	if p.width > maxWidth || p.limit > maxWidth {
		return p, 0, fmt.Errorf("%%%s: a width is at most %d", s[:n], maxWidth)
	}
	if n == len(s) {
		return p, 0, fmt.Errorf("a %% is its end; a per cent sign is %%%%")
	}
	letter := s[n]
	n++
	if strings.IndexByte("TAC", letter) >= 0 {
		if n == len(s) {
			return p, 0, fmt.Errorf("%%%c needs a letter behind it, as in %%%cY", letter, letter)
		}
		p.value, err = timeField(s[n])
		return p, n + 1, err
	}
	p.octal, p.plain = letter == 'm', letter == 'd'
	if p.value = fields[letter]; p.value == nil {
		err = fmt.Errorf("there is no %%%s; a per cent sign is %%%%", s[n-1:n])
	}
	return p, n, err
}

// fields are the properties of a file. What strangers wrote is harmless on a terminal.
var fields = map[byte]func(f *file) string{
	'p': func(f *file) string { return f.harmless(f.w.start.Prefix + f.pathname()) },
	'P': func(f *file) string {
		return f.harmless(strings.TrimPrefix(f.pathname()[len(f.w.start.Typed):], "/"))
	},
	'f': func(f *file) string { _, base := f.splitPath(); return f.harmless(base) },
	'h': func(f *file) string { dir, _ := f.splitPath(); return f.harmless(dir) },
	'H': func(f *file) string { return f.harmless(f.w.start.Prefix + f.w.start.Typed) },
	'l': func(f *file) string { return f.harmless(f.node.Target()) },
	's': func(f *file) string { return strconv.FormatInt(f.attr.Size, 10) },
	'b': func(f *file) string { return strconv.FormatUint(f.attr.Blocks(), 10) },
	'k': func(f *file) string { return strconv.FormatUint(f.attr.Blocks()/2+f.attr.Blocks()%2, 10) },
	'm': func(f *file) string { return strconv.FormatUint(uint64(f.attr.Mode&0o7777), 8) },
	'M': func(f *file) string { return ls.ModeString(f.attr.Mode) },
	'n': func(f *file) string { return strconv.FormatUint(uint64(f.attr.Nlink), 10) },
	'i': func(f *file) string { return strconv.FormatUint(f.node.Ino(), 10) },
	'd': func(f *file) string { return strconv.Itoa(f.depth) },
	'U': func(f *file) string { return strconv.FormatUint(uint64(f.attr.UID), 10) },
	'G': func(f *file) string { return strconv.FormatUint(uint64(f.attr.GID), 10) },
	'u': func(f *file) string {
		name, _ := f.w.ownersOf().User(f.attr.UID)
		return ownerText(name, f.attr.UID)
	},
	'g': func(f *file) string {
		name, _ := f.w.ownersOf().Group(f.attr.GID)
		return ownerText(name, f.attr.GID)
	},
	'y': func(f *file) string { return string(kindLetters[f.kind()]) },
	'Y': (*file).followedKind,
	't': (*file).asctime, 'a': (*file).asctime, 'c': (*file).asctime,
}

// harmless returns a text as it is, or on a terminal so that it does nothing there.
func (f *file) harmless(s string) string { return entry.Name(s, f.w.out.Terminal) }

// splitPath returns the directory of a file, and its name there as it is printed.
func (f *file) splitPath() (dir, base string) {
	path := f.pathname()
	i := strings.LastIndexByte(strings.TrimRight(path, "/"), '/')
	switch {
	case i >= 0:
		return f.w.start.Prefix + path[:i], path[i+1:]
	case strings.HasPrefix(path, "/"):
		return f.w.start.Prefix, path
	}
	return ".", path
}

// followedKind returns the letter of what a symlink leads to: N if there is nothing, and L
// if it leads to itself.
func (f *file) followedKind() string {
	if !f.isLink() {
		return string(kindLetters[f.kind()])
	}
	to, err := f.w.target()
	switch {
	case err == nil:
		return string(kindLetters[to.Mode()&unix.S_IFMT])
	case isLoop(err):
		return "L"
	}
	return "N"
}

func isLoop(err error) bool { return errors.Is(err, unix.ELOOP) }

// timeLetters are those of strftime(3) that may follow %T.
const timeLetters = "aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ"

// timeField returns what writes a part of a file's time.
func timeField(letter byte) (func(*file) string, error) {
	switch {
	case letter == '@':
		return func(f *file) string { return fmt.Sprintf("%d.%09d0", f.attr.ModSec, f.attr.ModNsec) }, nil
	case letter == '+':
		return func(f *file) string { return f.strftime("%F+%T") + f.fraction() }, nil
	case strings.IndexByte("STX", letter) >= 0:
		return func(f *file) string { return f.strftime("%"+string(letter)) + f.fraction() }, nil
	case strings.IndexByte(timeLetters, letter) < 0:
		return nil, fmt.Errorf("there is no %%T%c; there are %%T@, %%T+ and %%T with the letters of strftime", letter)
	}
	return func(f *file) string { return f.strftime("%" + string(letter)) }, nil
}

// time returns the time of a file.
func (f *file) time() time.Time { return time.Unix(f.attr.ModSec, int64(f.attr.ModNsec)) }

func (f *file) strftime(format string) string { return string(ls.AppendTime(nil, format, f.time())) }

// fraction returns the part of a second of a file's time.
func (f *file) fraction() string { return fmt.Sprintf(".%09d0", f.attr.ModNsec) }

// asctime returns the time of a file as ctime(3) writes it, with the part of a second.
func (f *file) asctime() string {
	if !ls.HasDate(f.attr.ModSec) {
		return strconv.FormatInt(f.attr.ModSec, 10) + f.fraction()
	}
	return f.strftime("%a %b %e %T") + f.fraction() + f.strftime(" %Y")
}

// printFormat is -printf.
func (f *file) printFormat(all format) {
	b := f.w.buf[:0]
	for _, p := range all {
		switch {
		case p.stop:
			f.w.buf = b
			f.w.write(b)
			return
		case p.value == nil:
			b = append(b, p.text...)
		default:
			b = p.append(b, p.value(f))
		}
	}
	f.w.buf = b
	f.w.write(b)
}

// append writes a property as printf(3) does.
func (p *piece) append(b []byte, v string) []byte {
	number := p.octal || p.plain
	has := func(flag string) bool { return strings.Contains(p.flags, flag) }
	if p.octal && has("#") && v != "0" {
		v = "0" + v
	}
	if number {
		for len(v) < p.limit {
			v = "0" + v
		}
	} else if p.limit >= 0 && p.limit < len(v) {
		v = v[:p.limit]
	}
	if p.plain && has("+") {
		v = "+" + v
	} else if p.plain && has(" ") {
		v = " " + v
	}
	fill := max(0, p.width-len(v))
	switch {
	case has("-"):
		return append(append(b, v...), strings.Repeat(" ", fill)...)
	case has("0") && number && p.limit < 0:
		sign := len(v) - len(strings.TrimLeft(v, "+ "))
		return append(append(append(b, v[:sign]...), strings.Repeat("0", fill)...), v[sign:]...)
	}
	return append(append(b, strings.Repeat(" ", fill)...), v...)
}
