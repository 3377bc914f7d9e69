package ls

import (
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// printLong prints rows as ls -l does.
func (l *Lister) printLong(g *group) {
	var w printedWidths
	for r := range l.look(g.wide) {
		l.measure(&w, r)
		l.measureLong(&w, g, r)
	}
	for r := range l.look(g.rows) {
		b := l.appendLong(l.buf[:0], g, &w, r)
		l.buf = append(b, l.eol)
		l.w.Write(l.buf)
		l.printed = true
	}
}

// measureLong counts what stands before names in the long format alone.
func (l *Lister) measureLong(w *printedWidths, g *group, r row) {
	if r.broken {
		w.nlink, w.user, w.group, w.size = max(w.nlink, 1), max(w.user, 1), max(w.group, 1), max(w.size, 1)
		return
	}
	a := r.node.Attr()
	w.nlink = max(w.nlink, digits(uint64(a.Nlink)))
	owners := l.owners(g, r)
	if !l.o.noOwner {
		w.user = max(w.user, ownerWidth(owners.users.byID, a.UID))
	}
	if !l.o.noGroup {
		w.group = max(w.group, ownerWidth(owners.groups.byID, a.GID))
	}
	if isDevice(a) {
		w.major, w.minor = max(w.major, digits(uint64(a.Major))), max(w.minor, digits(uint64(a.Minor)))
		w.size = max(w.size, w.major+len(", ")+w.minor)
	} else if l.o.size == gnu.Bytes {
		w.size = max(w.size, digits(uint64(a.Size)))
	} else {
		w.size = max(w.size, len(l.o.size.Append(nil, uint64(a.Size))))
	}
	w.acl = w.acl || r.aclMark() != 0
}

func isDevice(a fs.Attr) bool {
	return a.Mode&unix.S_IFMT == unix.S_IFCHR || a.Mode&unix.S_IFMT == unix.S_IFBLK
}

func digits(n uint64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// owners returns the names of owners that a row may have.
func (l *Lister) owners(g *group, r row) *Owners {
	img := g.image
	if r.arg != nil {
		img = r.arg.Image
	}
	if l.o.numeric || l.o.noOwner && l.o.noGroup {
		return noOwners
	}
	if img.owners == nil {
		img.owners = ReadOwners(l.ctx, img, l.out.Warnf)
	}
	return img.owners
}

// noOwners are where owners are numbers.
var noOwners = &Owners{}

func ownerWidth(names map[uint32]string, id uint32) int {
	if name := names[id]; name != "" {
		return width(name)
	}
	return digits(uint64(id))
}

// appendOwner writes a name on the left of its column, or a number on the right.
func appendOwner(b []byte, names map[uint32]string, id uint32, columns int) []byte {
	name := names[id]
	if name == "" {
		return append(padLeft(b, strconv.FormatUint(uint64(id), 10), columns), ' ')
	}
	b = append(b, name...)
	for range columns - width(name) + 1 {
		b = append(b, ' ')
	}
	return b
}

// aclMark returns what stands behind the mode of a file: a plus if it has a list of
// access rights that says more than the mode, a dot if it has a security context and
// nothing else, or 0.
func (r row) aclMark() byte {
	if len(r.node.Xattrs()) == 0 {
		return 0
	}
	const trivial = 4 + 3*8 // a list that says what the mode says
	switch {
	case r.node.Mode()&unix.S_IFMT == unix.S_IFLNK:
	case r.xattr("system.posix_acl_access") > trivial, r.xattr("system.posix_acl_default") >= trivial:
		return '+'
	}
	if r.xattr("security.selinux") >= 0 {
		return '.'
	}
	return 0
}

// appendLong writes the line of a row.
func (l *Lister) appendLong(b []byte, g *group, w *printedWidths, r row) []byte {
	b = l.appendFrills(b, w, r)
	if r.broken {
		b = l.appendUnknown(b, w)
		return l.appendIndicated(b, g, w, r, len(b))
	}
	a := r.node.Attr()
	b = append(b, ModeString(a.Mode)...)
	if w.acl {
		b = append(b, max(r.aclMark(), ' '))
	}
	b = append(b, ' ')
	b = append(padLeft(b, strconv.FormatUint(uint64(a.Nlink), 10), w.nlink), ' ')
	owners := l.owners(g, r)
	if !l.o.noOwner {
		b = appendOwner(b, owners.users.byID, a.UID, w.user)
	}
	if !l.o.noGroup {
		b = appendOwner(b, owners.groups.byID, a.GID, w.group)
	}
	if isDevice(a) {
		b = padLeft(b, strconv.FormatUint(uint64(a.Major), 10), w.size-len(", ")-w.minor)
		b = padLeft(append(b, ", "...), strconv.FormatUint(uint64(a.Minor), 10), w.minor)
	} else {
		b = padNumber(b, l.o.size, uint64(a.Size), w.size)
	}
	b = l.style.append(append(b, ' '), time.Unix(a.ModSec, int64(a.ModNsec)), l.out.Now)
	b = append(b, ' ')
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		return l.appendIndicated(b, g, w, r, len(b))
	}
	return l.appendTarget(l.appendName(b, g, w, r, len(b)), g, r)
}

// padNumber writes a number of bytes on the right of its column.
func padNumber(b []byte, u gnu.Unit, n uint64, columns int) []byte {
	if u == gnu.Bytes {
		for range columns - digits(n) {
			b = append(b, ' ')
		}
		return strconv.AppendUint(b, n, 10)
	}
	return padLeft(b, string(u.Append(nil, n)), columns)
}

// appendTarget writes what a symlink says, behind its name.
func (l *Lister) appendTarget(b []byte, g *group, r row) []byte {
	to := r.node.Target()
	text, _ := l.targets.quote(to)
	c := colored{name: to, capable: func() bool { return false }}
	if l.o.indicators >= fileTypes || l.colors != nil && l.colors.follow(l.o.format) {
		if n, ok := g.target(r); ok {
			c = colored{name: to, mode: n.Mode(), nlink: n.Attr().Nlink, capable: row{node: n}.capable}
		}
	}
	b = append(b, " -> "...)
	b = l.appendColored(b, text, func() string { return l.colors.of(c) }, len(b))
	if i := l.o.indicators.of(c.mode); i != 0 && l.o.indicators >= fileTypes {
		b = append(b, i)
	}
	return b
}

// appendUnknown writes question marks for all that is not known of a file.
func (l *Lister) appendUnknown(b []byte, w *printedWidths) []byte {
	b = append(b, brokenMode...)
	if w.acl {
		b = append(b, ' ')
	}
	b = append(padLeft(append(b, ' '), "?", w.nlink), ' ')
	for _, owner := range []struct {
		left  bool
		width int
	}{{l.o.noOwner, w.user}, {l.o.noGroup, w.group}} {
		if !owner.left {
			b = append(append(b, '?'), strings.Repeat(" ", owner.width)...)
		}
	}
	b = append(padLeft(b, "?", w.size), ' ')
	some := l.style.append(nil, time.Unix(0, 0), l.out.Now)
	return append(padLeft(b, "?", len(some)), ' ')
}
