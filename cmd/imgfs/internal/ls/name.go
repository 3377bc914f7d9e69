package ls

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// printedWidths are how many columns the widest of some rows take.
type printedWidths struct {
	layer              int
	inode, blocks      int
	nlink, user, group int
	size, major, minor int
	acl                bool // one of them has a mark behind its mode
	quoted             bool // one of the names is quoted
}

// measure counts what stands before names in all formats.
func (l *Lister) measure(w *printedWidths, r row) {
	if l.o.layers {
		w.layer = max(w.layer, len(l.layer(r)))
	}
	if l.o.inode {
		w.inode = max(w.inode, len(l.inode(r)))
	}
	if l.o.blocks {
		w.blocks = max(w.blocks, len(l.blocks(r)))
	}
	if !w.quoted && l.aligned() {
		_, w.quoted = l.quoter.quote(r.name)
	}
}

// aligned reports whether names that are not quoted stand below the text of those that
// are.
func (l *Lister) aligned() bool {
	if l.quoter.quoting != shell && l.quoter.quoting != shellEscape {
		return false
	}
	return l.o.format == long || (l.o.format == vertical || l.o.format == horizontal) && l.columns > 0
}

// layerOf returns the number of the layer that a file comes from, if it is known.
func (l *Lister) layerOf(r row) (layer int, ok bool) {
	img := l.image
	if r.arg != nil {
		img = r.arg.Image
	}
	if r.broken || img == nil || img.Layer == nil {
		return 0, false
	}
	return img.Layer(r.node), true
}

// layer returns the text of layerOf.
func (l *Lister) layer(r row) string {
	n, ok := l.layerOf(r)
	if !ok {
		return "?"
	}
	return strconv.Itoa(n)
}

func (l *Lister) inode(r row) string {
	if r.broken {
		return "?"
	}
	return strconv.FormatUint(r.node.Ino(), 10)
}

func (l *Lister) blocks(r row) string {
	if r.broken {
		return "?"
	}
	return string(l.o.block.Append(nil, r.node.Attr().Blocks()*512))
}

// appendFrills writes what stands before a name in all formats.
func (l *Lister) appendFrills(b []byte, w *printedWidths, r row) []byte {
	if l.o.layers {
		b = append(padLeft(b, l.layer(r), w.layer), ' ')
	}
	if l.o.inode {
		b = append(padLeft(b, l.inode(r), w.inode), ' ')
	}
	if l.o.blocks {
		b = append(padLeft(b, l.blocks(r), w.blocks), ' ')
	}
	return b
}

// frills returns how many columns appendFrills writes.
func (l *Lister) frills(w *printedWidths, r row) int {
	n := 0
	if l.o.layers {
		n += 1 + max(w.layer, len(l.layer(r)))
	}
	if l.o.inode {
		n += 1 + max(w.inode, len(l.inode(r)))
	}
	if l.o.blocks {
		n += 1 + max(w.blocks, len(l.blocks(r)))
	}
	return n
}

func padLeft(b []byte, text string, width int) []byte {
	for range width - len(text) {
		b = append(b, ' ')
	}
	return append(b, text...)
}

// nameColumns returns how many columns a name takes with what is before and behind it.
func (l *Lister) nameColumns(w *printedWidths, r row) int {
	text, quoted := l.quoter.quote(r.name)
	n := l.frills(w, r) + width(text)
	if w.quoted && !quoted {
		n++
	}
	if l.indicator(r) != 0 {
		n++
	}
	return n
}

// appendName writes the name of a row, with its colour. line is how many bytes stand
// before it.
func (l *Lister) appendName(b []byte, g *group, w *printedWidths, r row, line int) []byte {
	text, quoted := l.quoter.quote(r.name)
	if w.quoted && !quoted {
		b = append(b, ' ')
	}
	b = l.appendColored(b, text, func() string { return l.colors.of(l.colored(g, r)) }, line)
	return b
}

// appendIndicated is appendName, with the indicator behind it.
func (l *Lister) appendIndicated(b []byte, g *group, w *printedWidths, r row, line int) []byte {
	b = l.appendName(b, g, w, r, line)
	if c := l.indicator(r); c != 0 {
		b = append(b, c)
	}
	return b
}

// colored returns what the colour of a row depends on.
func (l *Lister) colored(g *group, r row) colored {
	a := r.node.Attr()
	c := colored{name: r.name, mode: a.Mode, nlink: a.Nlink, dangling: r.broken, capable: r.capable}
	if a.Mode&unix.S_IFMT != unix.S_IFLNK || r.broken {
		return c
	}
	c.dangling = true // as far as is known
	if l.colors.follow(l.o.format) {
		to, ok := g.target(r)
		if c.dangling = !ok; ok && l.colors.kinds["ln"] == "target" {
			c.mode, c.nlink, c.capable = to.Mode(), to.Attr().Nlink, row{node: to}.capable
		}
	}
	return c
}

// capable reports whether a file has capabilities.
func (r row) capable() bool { return r.xattr("security.capability") >= 0 }

// xattr returns how long an extended attribute is, or -1.
func (r row) xattr(name string) int {
	for _, x := range r.node.Xattrs() {
		if x.Name == name {
			return len(x.Value)
		}
	}
	return -1
}

// appendColored writes a text in a colour, if listings have colours and it has one.
func (l *Lister) appendColored(b []byte, text string, color func() string, line int) []byte {
	if l.colors == nil {
		return append(b, text...)
	}
	code := color()
	if code == "" {
		return append(b, text...)
	}
	kinds := l.colors.kinds
	end := kinds["ec"]
	if end == "" {
		end = kinds["lc"] + kinds["rs"] + kinds["rc"]
	}
	if !l.coloured {
		l.coloured = true
		b = append(b, end...)
	}
	b = append(append(append(b, kinds["lc"]...), code...), kinds["rc"]...)
	b = append(append(b, text...), end...)
	// What is behind the text in a line that the terminal has broken takes no colour.
	if n := len(text); l.columns > 0 && n > 0 && line/l.columns != (line+n-1)/l.columns {
		b = append(b, kinds["cl"]...)
	}
	return b
}

// endColors gives a terminal its usual colours back, if the sequences behind names may
// not have done so.
func (l *Lister) endColors() {
	if l.coloured && (l.colors.kinds["lc"] != defaultColors["lc"] || l.colors.kinds["rc"] != defaultColors["rc"]) {
		l.w.WriteString(l.colors.kinds["lc"] + l.colors.kinds["rc"])
	}
}

// indicator returns the character behind the name of a row, or 0.
func (l *Lister) indicator(r row) byte { return l.o.indicators.of(r.node.Mode()) }

// of returns the character behind the name of a file of some mode, or 0.
func (i indicators) of(mode uint32) byte {
	least, c := fileTypes, byte(0)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		least, c = slashes, '/'
	case unix.S_IFREG:
		if least = classes; mode&0o111 != 0 {
			c = '*'
		}
	case unix.S_IFLNK:
		c = '@'
	case unix.S_IFIFO:
		c = '|'
	case unix.S_IFSOCK:
		c = '='
	}
	if i < least {
		return 0
	}
	return c
}

var kindLetters = map[uint32]byte{unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's'}

// ModeString writes st_mode as ls does.
func ModeString(mode uint32) string {
	s := []byte("-rwxrwxrwx")
	if k, ok := kindLetters[mode&unix.S_IFMT]; ok {
		s[0] = k
	}
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			s[1+i] = '-'
		}
	}
	special := func(bit uint32, at int, with, without byte) {
		if mode&bit == 0 {
			return
		}
		if s[at] == 'x' {
			s[at] = with
		} else {
			s[at] = without
		}
	}
	special(unix.S_ISUID, 3, 's', 'S')
	special(unix.S_ISGID, 6, 's', 'S')
	special(unix.S_ISVTX, 9, 't', 'T')
	return string(s)
}

// brokenMode is the mode of a symlink that should be followed, and leads nowhere.
var brokenMode = "l" + strings.Repeat("?", 9)
