package ls

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// colors are the sequences that LS_COLORS gives to kinds of files, by dircolors' names
// of them, and to names by how they end.
type colors struct {
	kinds map[string]string
	ends  []ending // the last one of LS_COLORS first
}

// An ending is the colour of names that end with some text, whatever the case.
type ending struct{ end, color string }

// defaultColors are those of GNU ls where LS_COLORS is not set.
var defaultColors = map[string]string{
	"lc": "\x1b[", "rc": "m", "rs": "0", "cl": "\x1b[K",
	"di": "01;34", "ln": "01;36", "pi": "33", "so": "01;35", "bd": "01;33", "cd": "01;33", "ex": "01;32", "do": "01;35",
	"su": "37;41", "sg": "30;43", "st": "37;44", "ow": "34;42", "tw": "30;42",
}

// parseColors reads a value of LS_COLORS. Kinds that it does not name keep their
// colours; those that nobody knows are passed over.
func parseColors(s string) (*colors, error) {
	c := &colors{kinds: maps.Clone(defaultColors)}
	for s != "" {
		if s[0] == ':' {
			s = s[1:]
			continue
		}
		key, rest, ok := cutColor(s, '=')
		if !ok {
			return nil, fmt.Errorf("%q: there is no = behind it", s)
		}
		value, rest, _ := cutColor(rest, ':')
		if end, ok := strings.CutPrefix(key, "*"); ok {
			c.ends = append(c.ends, ending{strings.ToLower(end), value})
		} else {
			c.kinds[key] = value
		}
		s = rest
	}
	slices.Reverse(c.ends)
	return c, nil
}

// cutColor splits a text of LS_COLORS at a character that no escape belongs to, and
// undoes the escapes before it.
func cutColor(s string, at byte) (before, after string, found bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == at:
			return b.String(), s[i+1:], true
		case c == ':' && at == '=':
			return "", s, false
		case c == '\\' && i+1 < len(s):
			code, n := escapeIn(s[i+1:])
			b.WriteByte(code)
			i += n
		case c == '^' && i+1 < len(s):
			if i++; s[i] == '?' {
				b.WriteByte(0x7f)
			} else {
				b.WriteByte(s[i] & 0x1f)
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", false
}

// escapeIn reads an escape behind its backslash: a letter, or a number in octal or, behind
// an x, in hexadecimal digits. n is how long it is.
func escapeIn(s string) (c byte, n int) {
	if s[0] == 'x' || s[0] == 'X' {
		if c, n = digitsIn(s[1:], 16); n > 0 {
			return c, 1 + n
		}
	} else if c, n = digitsIn(s, 8); n > 0 {
		return c, n
	}
	if i := strings.IndexByte("abefnrtv?_", s[0]); i >= 0 {
		return "\a\b\x1b\f\n\r\t\v\x7f "[i], 1
	}
	return s[0], 1
}

// digitsIn reads the number that a text begins with, and returns how long it is.
func digitsIn(s string, base byte) (value byte, n int) {
	for ; n < len(s); n++ {
		d := strings.IndexByte("0123456789abcdef"[:base], lower(s[n]))
		if d < 0 {
			break
		}
		value = value*base + byte(d)
	}
	return value, n
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// newColors returns the colours for a listing, or nil if it has none. With "auto" it has
// them on a terminal that knows colours, unless the user wants none (no-color.org).
func (o *Options) newColors(terminal bool, warnf func(string, ...any)) *colors {
	kind := os.Getenv("TERM")
	able := terminal && kind != "" && kind != "dumb" && os.Getenv("NO_COLOR") == ""
	if o.color == never || o.color == auto && !able {
		return nil
	}
	c, err := parseColors(os.Getenv("LS_COLORS"))
	if err != nil {
		warnf("no colours: the variable LS_COLORS: %v", err)
	}
	return c
}

// has reports whether a kind of files has a colour of its own.
func (c *colors) has(kind string) bool {
	code := c.kinds[kind]
	return code != "" && code != "0" && code != "00"
}

// follow reports whether the colours of a listing depend on where symlinks lead. Only
// that of format long has the names of what they lead to.
func (c *colors) follow(f format) bool {
	return c.has("or") || c.has("mi") && f == long || c.has("ex") && c.kinds["ln"] == "target"
}

// of returns the colour of a file, or "": the file has some mode and links, and what
// link says if it is a symlink.
func (c *colors) of(f colored) string {
	kind := ""
	switch m := f.mode; m & unix.S_IFMT {
	case unix.S_IFREG:
		switch {
		case m&unix.S_ISUID != 0 && c.has("su"):
			kind = "su"
		case m&unix.S_ISGID != 0 && c.has("sg"):
			kind = "sg"
		case c.has("ca") && f.capable():
			kind = "ca"
		case m&0o111 != 0 && c.has("ex"):
			kind = "ex"
		case f.nlink > 1 && c.has("mh"):
			kind = "mh"
		default:
			return c.ofRegular(f.name)
		}
	case unix.S_IFDIR:
		switch sticky, open := m&unix.S_ISVTX != 0, m&unix.S_IWOTH != 0; {
		case sticky && open && c.has("tw"):
			kind = "tw"
		case open && c.has("ow"):
			kind = "ow"
		case sticky && c.has("st"):
			kind = "st"
		default:
			kind = "di"
		}
	case unix.S_IFLNK:
		if kind = "ln"; f.dangling && (c.kinds["ln"] == "target" || c.has("or")) {
			kind = "or"
		}
	case unix.S_IFIFO:
		kind = "pi"
	case unix.S_IFSOCK:
		kind = "so"
	case unix.S_IFBLK:
		kind = "bd"
	case unix.S_IFCHR:
		kind = "cd"
	default:
		if kind = "or"; c.has("mi") {
			kind = "mi"
		}
	}
	return c.kinds[kind]
}

// A colored is what the colour of a name depends on. Of what a symlink leads to without
// there being anything the mode is 0.
type colored struct {
	name     string
	mode     uint32
	nlink    uint32
	dangling bool
	capable  func() bool // of the attribute security.capability
}

// ofRegular returns the colour of a regular file without any special bits.
func (c *colors) ofRegular(name string) string {
	for _, e := range c.ends {
		if at := len(name) - len(e.end); at >= 0 && strings.EqualFold(name[at:], e.end) {
			return e.color
		}
	}
	return c.kinds["fi"]
}
