package entry

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// An Entry is a file of an image, as --json prints it. docs/json.md has its members.
type Entry struct {
	Path        string         `json:"path"` // absolute, in the image
	PathBytes   show.NameBytes `json:"pathBytes,omitempty"`
	Type        string         `json:"type"` // see Type
	Mode        string         `json:"mode"` // four octal digits: 07777
	UID         uint32         `json:"uid"`
	GID         uint32         `json:"gid"`
	Size        int64          `json:"size"`
	Modified    string         `json:"modified"` // see Time
	Links       uint32         `json:"links"`
	Inode       uint64         `json:"inode"`
	Target      string         `json:"target,omitempty"` // of a symlink
	TargetBytes show.NameBytes `json:"targetBytes,omitempty"`
	Device      string         `json:"device,omitempty"` // MAJOR:MINOR
	Xattrs      []Xattr        `json:"xattrs,omitempty"`
}

// An Xattr is an extended attribute.
type Xattr struct {
	Name      string         `json:"name"`
	NameBytes show.NameBytes `json:"nameBytes,omitempty"`
	Value     []byte         `json:"value"` // base64
}

// New returns the entry of the inode at a path.
func New(path string, n fs.Node) Entry {
	a := n.Attr()
	e := Entry{
		Path: path, Type: Type(a.Mode), Mode: fmt.Sprintf("%04o", a.Mode&0o7777), UID: a.UID, GID: a.GID,
		Size: a.Size, Modified: Time(a), Links: a.Nlink, Inode: n.Ino(), Target: n.Target(),
	}
	if t := a.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		e.Device = fmt.Sprintf("%d:%d", a.Major, a.Minor)
	}
	for _, x := range n.Xattrs() {
		e.Xattrs = append(e.Xattrs, Xattr{Name: x.Name, Value: []byte(x.Value)})
	}
	return e
}

// Path returns a path that a user wrote, or that begins with one, as entries have it:
// absolute, without dots that mean nothing. What .. is depends on symlinks before it, so
// it stays.
func Path(p string) string {
	if p = "/" + p; !strings.Contains(p, "..") {
		return path.Clean(p)
	}
	names := slices.DeleteFunc(strings.Split(p, "/"), func(name string) bool { return name == "" || name == "." })
	return "/" + strings.Join(names, "/")
}

// Time returns the time of modification as in RFC 3339, in UTC. A year that has not
// four digits is written as GNU date has it, @SECONDS.NANOSECONDS.
func Time(a fs.Attr) string {
	if t := time.Unix(a.ModSec, int64(a.ModNsec)).UTC(); t.Year() >= 0 && t.Year() <= 9999 {
		return t.Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("@%d.%09d", a.ModSec, a.ModNsec)
}

// Type returns the word for the kind of file that a mode is of: file, dir, symlink,
// char, block, fifo or socket.
func Type(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "file"
}

// Name returns how a name is printed: as it is, or, on a terminal, so that it does
// nothing there.
func Name(name string, terminal bool) string {
	if terminal {
		return printable.Name(name)
	}
	return name
}
