package find

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"golang.org/x/sys/unix"
)

// lsWidths are how wide the columns of -ls are. They grow with what is printed.
type lsWidths struct{ inode, blocks, links, user, group, size, major, minor int }

func newWidths() lsWidths {
	return lsWidths{inode: 9, blocks: 6, links: 3, user: 8, group: 8, size: 8, major: 3, minor: 3}
}

// How old a file is, and how far in the future, of which -ls shows the time of day.
const (
	recent = 180 * day
	soon   = 60 * 60
)

// list is -ls.
func (f *file) list() {
	w := f.w
	b, a, widths := w.buf[:0], &f.attr, &w.widths
	owners := w.ownersOf()
	user, _ := owners.User(a.UID)
	group, _ := owners.Group(a.GID)
	b = appendRight(b, strconv.FormatUint(f.node.Ino(), 10), &widths.inode)
	b = appendRight(append(b, ' '), strconv.FormatUint(a.Blocks()/2+a.Blocks()%2, 10), &widths.blocks)
	b = append(append(b, ' '), ls.ModeString(a.Mode)...)
	b = appendRight(append(b, ' '), strconv.FormatUint(uint64(a.Nlink), 10), &widths.links)
	b = appendLeft(append(b, ' '), ownerText(user, a.UID), &widths.user)
	b = appendLeft(append(b, ' '), ownerText(group, a.GID), &widths.group)
	if t := a.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		b = appendRight(append(b, ' '), strconv.FormatUint(uint64(a.Major), 10), &widths.major)
		b = appendRight(append(b, ',', ' '), strconv.FormatUint(uint64(a.Minor), 10), &widths.minor)
	} else {
		b = appendRight(append(b, ' '), strconv.FormatInt(a.Size, 10), &widths.size)
	}
	format := "%b %e  %Y"
	if m := modified(*a); m.compare(w.e.now.plus(-recent)) >= 0 && m.compare(w.e.now.plus(soon)) <= 0 {
		format = "%b %e %H:%M"
	}
	b = ls.AppendTime(append(b, ' '), format, time.Unix(a.ModSec, int64(a.ModNsec)))
	b = appendEscaped(append(b, ' '), w.start.Prefix+f.pathname())
	if f.isLink() {
		b = appendEscaped(append(b, " -> "...), f.node.Target())
	}
	w.buf = append(b, '\n')
	w.write(w.buf)
}

// ownerText is the name of an owner, or the number of one that has none.
func ownerText(name string, id uint32) string {
	if name == "" {
		return strconv.FormatUint(uint64(id), 10)
	}
	return name
}

// appendRight writes a text on the right of its column.
func appendRight(b []byte, text string, width *int) []byte {
	*width = max(*width, len(text))
	for range *width - len(text) {
		b = append(b, ' ')
	}
	return append(b, text...)
}

// appendLeft writes a text on the left of its column.
func appendLeft(b []byte, text string, width *int) []byte {
	n := utf8.RuneCountInString(text)
	*width = max(*width, n)
	b = append(b, text...)
	for range *width - n {
		b = append(b, ' ')
	}
	return b
}

// appendEscaped writes a name as C does, with spaces escaped, too, so that it is one word
// of one line, of ASCII alone.
func appendEscaped(b []byte, name string) []byte {
	for i := range len(name) {
		switch c := name[i]; {
		case c == '\\', c == '"', c == ' ':
			b = append(b, '\\', c)
		case c > ' ' && c < 0x7f:
			b = append(b, c)
		case c >= '\b' && c <= '\r' && c != '\v':
			b = append(b, '\\', "btn?fr"[c-'\b'])
		default:
			b = fmt.Appendf(b, `\%03o`, c)
		}
	}
	return b
}
