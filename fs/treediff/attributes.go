package treediff

import (
	"slices"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"golang.org/x/sys/unix"
)

// attributes returns in what two files at a path differ, besides their content.
func (w *walk) attributes(path string, a, b fs.Node) What {
	var differ What
	note := func(what What, yes bool) {
		if yes {
			differ |= what
		}
	}
	x, y := a.Attr(), b.Attr()
	typ := x.Mode & unix.S_IFMT
	alike := typ == y.Mode&unix.S_IFMT
	switch {
	case !alike:
		differ |= Type
	case typ == unix.S_IFLNK:
		note(Target, a.Target() != b.Target())
	case typ == unix.S_IFCHR || typ == unix.S_IFBLK:
		note(Device, x.Major != y.Major || x.Minor != y.Minor)
	}
	link := typ == unix.S_IFLNK || y.Mode&unix.S_IFMT == unix.S_IFLNK
	dir := typ == unix.S_IFDIR || y.Mode&unix.S_IFMT == unix.S_IFDIR
	note(Mode, !link && (x.Mode^y.Mode)&0o7777 != 0) // a symlink's means nothing
	note(Owner, x.UID != y.UID || x.GID != y.GID)
	note(Time, (!dir || w.opts.DirTimes) && (x.ModSec != y.ModSec || x.ModNsec != y.ModNsec))
	note(Xattrs, !slices.Equal(a.Xattrs(), b.Xattrs()))
	note(HardLinks, w.firstPath(0, path, a, x) != w.firstPath(1, path, b, y) && alike)
	return differ &^ w.opts.Ignore
}

// firstPath returns the first path that an inode has on a side, of those that both sides
// have: two sides link the same paths to each other if it is the same for all of them.
// So a link that was added or removed is a change, and the file's other paths are none.
func (w *walk) firstPath(side int, path string, n fs.Node, a fs.Attr) string {
	if a.Nlink < 2 || a.Mode&unix.S_IFMT == unix.S_IFDIR {
		return path
	}
	first, ok := w.first[side][n]
	if !ok {
		w.first[side][n] = path
		return path
	}
	return first
}

// XattrNames returns the names of the extended attributes in which two files differ.
func XattrNames(a, b fs.Node) []string {
	var names []string
	x, y := a.Xattrs(), b.Xattrs()
	has := func(in []layerindex.Xattr, attr layerindex.Xattr) bool { return slices.Contains(in, attr) }
	for _, attr := range x {
		if !has(y, attr) {
			names = append(names, attr.Name)
		}
	}
	for _, attr := range y {
		if !has(x, attr) {
			names = append(names, attr.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
