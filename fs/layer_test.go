package fs_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
)

// The dialect in which tests write layers: layer(dir("etc/"),
// file("etc/a", "x"), whiteout("etc/b")). See package layertest.
type (
	member = layertest.Member
	option = layertest.Option
)

var (
	file     = layertest.File
	sparse   = layertest.Sparse
	dir      = layertest.Dir
	symlink  = layertest.Symlink
	link     = layertest.Link
	fifo     = layertest.Fifo
	device   = layertest.Device
	whiteout = layertest.Whiteout
	opaque   = layertest.Opaque
	mode     = layertest.Mode
	owner    = layertest.Owner
	mtime    = layertest.MTime
	xattr    = layertest.Xattr
	tarOf    = layertest.TarOf
)

func layer(members ...member) []member { return members }

// memContent is a layer's uncompressed stream in memory.
type memContent []byte

func (c memContent) ReadFileAt(ctx context.Context, p []byte, off, _ int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return bytes.NewReader(c).ReadAt(p, off)
}

// layersOf makes what Merge takes of stacks in the dialect. As the contract
// of layerindex.Entries has it, an entry is overwritten by the next one.
func layersOf(stack ...[]member) []fs.Layer {
	layers := make([]fs.Layer, len(stack))
	for i, members := range stack {
		var content memContent
		entries := make([]layerindex.Entry, len(members))
		for j, m := range members {
			content = append(content, "some header"...)
			entries[j] = m.Entry
			if m.Type == layerindex.TypeReg {
				entries[j].Off = int64(len(content))
			}
			content = append(content, m.Data...)
		}
		layers[i] = fs.Layer{
			Name:    fmt.Sprintf("L%d", i+1),
			Content: fs.StreamContent(content),
			Entries: func(yield func(*layerindex.Entry) bool) {
				var e layerindex.Entry
				for i := range entries {
					xattrs := append(e.Xattrs[:0], entries[i].Xattrs...)
					e = entries[i]
					e.Xattrs = xattrs
					if !yield(&e) {
						return
					}
				}
			},
		}
	}
	return layers
}

func merge(t testing.TB, stack ...[]member) *fs.Tree {
	t.Helper()
	tree, err := fs.Merge(t.Context(), layersOf(stack...))
	if err != nil {
		t.Fatalf("Merge: %v", err)
	}
	return tree
}

// pathsOf calls f with every path of a tree but the root's, in byte order
// within each directory.
func pathsOf(n fs.Node, prefix string, f func(path string, n fs.Node)) {
	for name, child := range n.Children() {
		f(prefix+name, child)
		if isDir(child) {
			pathsOf(child, prefix+name+"/", f)
		}
	}
}

func isDir(n fs.Node) bool { return n.Mode()&syscall.S_IFMT == syscall.S_IFDIR }

// list shows a tree in one line, as the table of cases does: "d/" is a
// directory, "f=x" a file with content, "l->t" a symlink, "p|" a fifo,
// "c:1:3" and "b:8:0" are devices.
func list(t testing.TB, tree *fs.Tree) string {
	t.Helper()
	var words []string
	pathsOf(tree.Root(), "", func(path string, n fs.Node) {
		a := n.Attr()
		switch a.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			path += "/"
		case syscall.S_IFREG:
			path += "=" + readAll(t, n)
		case syscall.S_IFLNK:
			path += "->" + n.Target()
		case syscall.S_IFIFO:
			path += "|"
		case syscall.S_IFCHR:
			path = fmt.Sprintf("%s:c%d:%d", path, a.Major, a.Minor)
		case syscall.S_IFBLK:
			path = fmt.Sprintf("%s:b%d:%d", path, a.Major, a.Minor)
		}
		words = append(words, path)
	})
	return strings.Join(words, " ")
}

// readAll reads a file in one ReadAt.
func readAll(t testing.TB, n fs.Node) string {
	t.Helper()
	p := make([]byte, n.Attr().Size)
	if got, err := n.ReadAt(t.Context(), p, 0); got != len(p) || err != nil {
		t.Errorf("inode %d: ReadAt of all %d bytes: got %d, %v", n.Ino(), len(p), got, err)
	}
	return string(p)
}

// attrs shows the attributes of an inode: "mode uid:gid mtime links xattrs".
func attrs(n fs.Node) string {
	a := n.Attr()
	s := fmt.Sprintf("%04o %d:%d %d", a.Mode&0o7777, a.UID, a.GID, a.ModSec)
	if a.ModNsec != 0 {
		s += fmt.Sprintf(".%09d", a.ModNsec)
	}
	s += fmt.Sprintf(" x%d", a.Nlink)
	for _, x := range n.Xattrs() {
		s += " " + x.Name + "=" + x.Value
	}
	return s
}

// export writes a tree as layers again. Two, because a directory called .wh.x
// has no entry of its own: it is there if something was in it.
func export(t testing.TB, tree *fs.Tree) [][]member {
	t.Helper()
	base, second := []member{exported(t, ".", tree.Root())}, []member{}
	first := make(map[uint64]string)
	pathsOf(tree.Root(), "", func(path string, n fs.Node) {
		name := path[strings.LastIndexByte(path, '/')+1:]
		if strings.HasPrefix(name, ".wh.") {
			if _, ok := n.Child("x"); !ok {
				base = append(base, file(path+"/x", ""))
				second = append(second, whiteout(path+"/x"))
			}
			return
		}
		m := exported(t, path, n)
		if target, ok := first[n.Ino()]; ok {
			m.Type, m.Linkname, m.Size, m.Data, m.Sparse = layerindex.TypeLink, target, 0, "", nil
		} else {
			first[n.Ino()] = path
		}
		base = append(base, m)
	})
	return [][]member{base, second}
}

// exported is the entry of an inode at its first path.
func exported(t testing.TB, path string, n fs.Node) member {
	t.Helper()
	types := map[uint32]layerindex.Type{
		syscall.S_IFREG: layerindex.TypeReg, syscall.S_IFDIR: layerindex.TypeDir,
		syscall.S_IFLNK: layerindex.TypeSymlink, syscall.S_IFIFO: layerindex.TypeFifo,
		syscall.S_IFCHR: layerindex.TypeChar, syscall.S_IFBLK: layerindex.TypeBlock,
	}
	a := n.Attr()
	m := member{Entry: layerindex.Entry{
		Name: path, Type: types[a.Mode&syscall.S_IFMT], Linkname: n.Target(),
		Mode: a.Mode & 0o7777, UID: a.UID, GID: a.GID, ModSec: a.ModSec, ModNsec: a.ModNsec,
		Major: a.Major, Minor: a.Minor, Xattrs: slices.Clone(n.Xattrs()),
	}}
	if m.Type == layerindex.TypeReg {
		m.Data, m.Size = readAll(t, n), a.Size
	}
	return m
}

// dump is Tree.Dump in a string.
func dump(t testing.TB, tree *fs.Tree) string {
	t.Helper()
	var b strings.Builder
	if err := tree.Dump(t.Context(), &b, true); err != nil {
		t.Fatalf("Dump: %v", err)
	}
	return b.String()
}
