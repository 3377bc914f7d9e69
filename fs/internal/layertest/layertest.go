// Package layertest has the dialect in which tests write layers, and makes
// tars of it: Dir("etc/"), File("etc/a", "x"), Whiteout("etc/b"). Names are given
// as a tar has them.
package layertest

import (
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// A member is an entry and the bytes that its tar has for it.
type Member struct {
	layerindex.Entry
	Data string
}

// An Option changes a member.
type Option func(*Member)

func newMember(typ layerindex.Type, name string, opts []Option) Member {
	m := Member{Entry: layerindex.Entry{Type: typ, Name: name, Mode: 0o644, ModSec: 100}}
	if typ == layerindex.TypeDir {
		m.Mode = 0o755
	}
	for _, o := range opts {
		o(&m)
	}
	return m
}

// File is a regular file.
func File(name, content string, opts ...Option) Member {
	m := newMember(layerindex.TypeReg, name, opts)
	m.Data, m.Size = content, int64(len(content))
	return m
}

// Sparse is a file of a size, with content at the extents.
func Sparse(name string, size int64, content string, extents []layerindex.Extent, opts ...Option) Member {
	m := newMember(layerindex.TypeReg, name, opts)
	m.Data, m.Size, m.Sparse = content, size, extents
	return m
}

// Dir is a directory.
func Dir(name string, opts ...Option) Member {
	return newMember(layerindex.TypeDir, name, opts)
}

// Symlink is a symlink to a target.
func Symlink(name, target string, opts ...Option) Member {
	m := newMember(layerindex.TypeSymlink, name, opts)
	m.Linkname = target
	return m
}

// Link is a hard link to a target.
func Link(name, target string, opts ...Option) Member {
	m := newMember(layerindex.TypeLink, name, opts)
	m.Linkname = target
	return m
}

// Fifo is a named pipe.
func Fifo(name string, opts ...Option) Member {
	return newMember(layerindex.TypeFifo, name, opts)
}

// Device is a device of a type.
func Device(typ layerindex.Type, name string, major, minor uint32, opts ...Option) Member {
	m := newMember(typ, name, opts)
	m.Major, m.Minor = major, minor
	return m
}

// Whiteout hides a path: its entry is an empty file .wh.NAME beside it.
func Whiteout(path string) Member {
	i := strings.LastIndexByte(path, '/') + 1
	return File(path[:i]+".wh."+path[i:], "")
}

// Opaque hides what lower layers have in a directory.
func Opaque(dir string) Member { return File(dir+"/.wh..wh..opq", "") }

// Mode gives a member other permissions.
func Mode(m uint32) Option { return func(e *Member) { e.Mode = m } }

// Owner gives a member an owner.
func Owner(uid, gid uint32) Option { return func(e *Member) { e.UID, e.GID = uid, gid } }

// MTime gives a member a time.
func MTime(sec int64, nsec uint32) Option {
	return func(e *Member) { e.ModSec, e.ModNsec = sec, nsec }
}

// Xattr gives a member one more extended attribute.
func Xattr(name, value string) Option {
	return func(e *Member) { e.Xattrs = append(e.Xattrs, layerindex.Xattr{Name: name, Value: value}) }
}

// String writes a member as the dialect does, for messages.
func (m Member) String() string {
	kinds := map[layerindex.Type]string{
		layerindex.TypeReg: "file", layerindex.TypeDir: "dir", layerindex.TypeLink: "link", layerindex.TypeSymlink: "symlink",
		layerindex.TypeFifo: "fifo", layerindex.TypeChar: "char", layerindex.TypeBlock: "block",
	}
	s := fmt.Sprintf("%s(%q", kinds[m.Type], m.Name)
	if m.Linkname != "" || m.Type == layerindex.TypeLink {
		s += fmt.Sprintf(", %q", m.Linkname)
	}
	if m.Type == layerindex.TypeReg {
		s += fmt.Sprintf(", %q", m.Data)
	}
	s += fmt.Sprintf(", mode(%#o), owner(%d, %d), mtime(%d, %d)", m.Mode, m.UID, m.GID, m.ModSec, m.ModNsec)
	for _, x := range m.Xattrs {
		s += fmt.Sprintf(", xattr(%q, %q)", x.Name, x.Value)
	}
	if m.Sparse != nil {
		s += fmt.Sprintf(", size %d, extents %v", m.Size, m.Sparse)
	}
	return s + ")"
}

// Content is what a file holds, with its holes.
func (m Member) Content() []byte {
	if m.Sparse == nil {
		return []byte(m.Data)
	}
	p, data := make([]byte, m.Size), m.Data
	for _, x := range m.Sparse {
		data = data[copy(p[x.Off:x.Off+x.Size], data):]
	}
	return p
}
