package ls

import (
	"cmp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// sort puts the positions of a group's rows in the order that the options want.
func (l *Lister) sort(g *group) {
	if !l.o.dirsFirst {
		l.sortPart(g, g.order)
		return
	}
	var dirs, others []uint32
	for _, i := range g.order {
		if l.leadsToDir(g, g.at(i)) {
			dirs = append(dirs, i)
		} else {
			others = append(others, i)
		}
	}
	l.sortPart(g, dirs)
	l.sortPart(g, others)
	g.order = append(dirs, others...)
}

// sortPart sorts some positions of a group's rows.
func (l *Lister) sortPart(g *group, part []uint32) {
	if l.o.sort == byNothing {
		return
	}
	compare := l.comparison()
	slices.SortFunc(part, func(i, j uint32) int {
		a, b := g.at(i), g.at(j)
		c := cmp.Or(compare(a, b), strings.Compare(a.name, b.name))
		if l.o.reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(i, j)) // arguments may have the same name
	})
}

// comparison returns how two rows compare, but for their names.
func (l *Lister) comparison() func(a, b row) int {
	switch l.o.sort {
	case bySize:
		return func(a, b row) int { return cmp.Compare(b.node.Attr().Size, a.node.Attr().Size) }
	case byTime:
		return func(a, b row) int {
			x, y := a.node.Attr(), b.node.Attr()
			return cmp.Or(cmp.Compare(y.ModSec, x.ModSec), cmp.Compare(y.ModNsec, x.ModNsec))
		}
	case byExtension:
		return func(a, b row) int { return strings.Compare(extension(a.name), extension(b.name)) }
	case byVersion:
		return func(a, b row) int { return compareVersions(a.name, b.name) }
	case byWidth:
		return func(a, b row) int { return cmp.Compare(l.nameWidth(a), l.nameWidth(b)) }
	}
	return func(a, b row) int { return 0 }
}

// nameWidth returns how many columns a name takes.
func (l *Lister) nameWidth(r row) int {
	text, _ := l.quoter.quote(r.name)
	return width(text)
}

// leadsToDir reports whether a row is a directory, or a symlink to one.
func (l *Lister) leadsToDir(g *group, r row) bool {
	if r.node.Mode()&unix.S_IFMT != unix.S_IFLNK {
		return isDir(r.node)
	}
	to, ok := g.target(r)
	return ok && isDir(to)
}

func extension(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[i:]
	}
	return ""
}

// compareVersions compares names as GNU does, so that numbers in them count: a9 comes
// before a10. Names that begin with a dot come first. What is behind the name proper, as
// .tar.gz, counts only between names that are alike before it.
func compareVersions(a, b string) int {
	if a == b {
		return 0
	}
	hidden := func(s string) int {
		switch {
		case s == "":
			return 0
		case s == ".":
			return 1
		case s == "..":
			return 2
		case s[0] == '.':
			return 3
		}
		return 4
	}
	if x, y := hidden(a), hidden(b); x != y || x < 3 {
		return cmp.Compare(x, y)
	}
	if c := compareRuns(a[:stemLength(a)], b[:stemLength(b)]); c != 0 {
		return c
	}
	return compareRuns(a, b)
}

// stemLength returns where the extensions of a name begin: dots with a letter behind
// each, and digits.
func stemLength(name string) int {
	end := len(name)
	for i := len(name) - 1; i > 0; i-- {
		switch c := name[i]; {
		case c == '.' && i+1 < len(name) && (isLetter(name[i+1]) || name[i+1] == '~'):
			end = i
		case c != '.' && (isLetter(c) || isDigit(c) || c == '~'):
		default:
			return end
		}
	}
	return end
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { c = lower(c); return c >= 'a' && c <= 'z' }

// compareRuns compares texts run by run, of digits and of other characters.
func compareRuns(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
		x, y := digitRun(a), digitRun(b)
		a, b = a[len(x):], b[len(y):]
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
	}
	return 0
}

func digitRun(s string) string { return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))] }

// weight returns the place of the character that a text begins with: ~ comes before
// the end, that before digits, then letters, then all others.
func weight(s string) int {
	switch {
	case s == "":
		return -1
	case isDigit(s[0]):
		return 0
	case isLetter(s[0]):
		return int(s[0])
	case s[0] == '~':
		return -2
	}
	return int(s[0]) + 256
}
