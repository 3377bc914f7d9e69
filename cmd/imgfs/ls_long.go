package main

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// cells are the columns of ls -ln between mode and time. A device has major
// and minor in place of a size.
type cells struct{ nlink, uid, gid, size, major, minor string }

func cellsOf(a fs.Attr) cells {
	c := cells{nlink: fmt.Sprint(a.Nlink), uid: fmt.Sprint(a.UID), gid: fmt.Sprint(a.GID)}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		c.major, c.minor = fmt.Sprint(a.Major), fmt.Sprint(a.Minor)
	default:
		c.size = fmt.Sprint(a.Size)
	}
	return c
}

// widths are those of the widest cells.
type widths struct{ nlink, uid, gid, size, major, minor int }

func (w *widths) add(c cells) {
	w.nlink, w.uid, w.gid = max(w.nlink, len(c.nlink)), max(w.uid, len(c.uid)), max(w.gid, len(c.gid))
	w.size, w.major, w.minor = max(w.size, len(c.size)), max(w.major, len(c.major)), max(w.minor, len(c.minor))
	if w.minor > 0 {
		w.size = max(w.size, w.major+len(", ")+w.minor)
	}
}

// printLong prints rows as ls -ln does, the time in UTC.
func (l *lister) printLong(ctx context.Context, rows iter.Seq[row]) {
	var w widths
	for r := range look(ctx, rows) {
		w.add(cellsOf(r.node.Attr()))
	}
	for r := range look(ctx, rows) {
		l.printed = true
		a, name := r.node.Attr(), l.shown(r.name)
		if a.Mode&unix.S_IFMT == unix.S_IFLNK {
			name += " -> " + l.shown(r.node.Target())
		}
		c := cellsOf(a)
		if c.minor != "" {
			c.size = fmt.Sprintf("%s, %*s", c.major, w.minor, c.minor)
		}
		fmt.Fprintf(l.w, "%s %*s %*s %*s %*s %s %s\n", modeString(a.Mode), w.nlink, c.nlink, w.uid, c.uid, w.gid, c.gid, w.size, c.size,
			time.Unix(a.ModSec, 0).UTC().Format(time.DateTime), name)
	}
}

// modeString writes st_mode as ls does.
func modeString(mode uint32) string {
	kinds := map[uint32]byte{unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's'}
	s := []byte("-rwxrwxrwx")
	if k, ok := kinds[mode&unix.S_IFMT]; ok {
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
