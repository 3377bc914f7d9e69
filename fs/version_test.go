package fs_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

var update = flag.Bool("update", false, "rewrite testdata")

// versionLayers have everything in them that merging decides about.
func versionLayers() [][]member {
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff"
	return [][]member{
		{
			dir("./", mode(0o751), mtime(5, 6)), dir("etc/", owner(1, 2)), file("etc/passwd", "root"), file("etc/gone", "x"),
			dir("usr/bin/", mode(0o1777)), file("usr/bin/su", "suid", mode(0o4755), xattr("security.capability", "\x01\x00\x00\x02")),
			link("usr/bin/also", "usr/bin/su"), symlink("bin", "usr/bin"), symlink("dangling", "/no/where"),
			device(layerindex.TypeChar, "dev/null", 1, 3), device(layerindex.TypeBlock, "dev/disk", 259, 70000), fifo("dev/pipe"),
			dir("opaque/"), file("opaque/below", "x"), dir("opaque/deep/"), file("opaque/deep/file", "x"),
			dir("kept/"), file("kept/a", "a"), file("kept/b", "b"), dir("tofile/"), file("tofile/x", ""), file("todir", "x"),
			file("odd/back\\slash", "x"), file("odd/line\nfeed", "x"), file("odd/\xff\xfe", "x"), file("odd/ space", "x"), file("odd/*", "x"),
			file("odd/é", "x"), file("odd/e\u0301", "x"), file("z/made/on/the/way", "x"), file("twice", "first"), file("twice", "second!"),
			file("old", "x", mtime(-5, 999999999)), file("late", "x", mtime(1<<40, 1)), file("big-owner", "x", owner(1<<31, 1<<32-1)),
			sparse("sparse", 1<<20, "datamore", []layerindex.Extent{{Off: 4096, Size: 4}, {Off: 65536, Size: 4}}),
			file("acl", "x"), file("acl2", "x", xattr("system.posix_acl_access", acl), xattr("user.b", ""), xattr("user.a", "\x00\xff")),
		},
		{
			whiteout("etc/gone"), whiteout("never/was"), opaque("opaque"), file("opaque/above", "y"), file("kept/b", "new"),
			file("tofile", "now a file"), dir("todir/"), file("todir/x", "x"), dir("etc/", mode(0o700), xattr("user.dir", "x")),
			link("kept/link", "etc/passwd"), file("usr/bin/also", "no link any more"), symlink("dangling", "usr"),
			whiteout("acl"), dir("kept/"), file("bin/through", "in usr/bin"),
		},
		{
			link("etc/passwd2", "etc/passwd"), whiteout("opaque/above"), dir("opaque/"), device(layerindex.TypeChar, "kept/a", 0, 0),
			file("usr/bin/su", "again", mode(0o2711)), dir("empty/", mtime(0, 0)),
		},
	}
}

// TestTreeVersion: the tree of fixed layers is what testdata says, node for node, in the
// order of the tree. If it is not, that is a tree that a mount of the version before does
// not show: raise fs.TreeVersion, and then write the file again with -update.
func TestTreeVersion(t *testing.T) {
	var got bytes.Buffer
	fmt.Fprintf(&got, "version %d\n", fs.TreeVersion)
	tree := merge(t, versionLayers()...)
	writeNode(&got, tree.Root(), "")
	file := filepath.Join("testdata", "tree-version.txt")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the tree has changed: raise fs.TreeVersion, then go test ./fs -run TestTreeVersion -update\ngot:\n%s\nwant:\n%s", got.Bytes(), want)
	}
}

// writeNode writes a node with all that is below it.
func writeNode(to *bytes.Buffer, n fs.Node, name string) {
	a := n.Attr()
	fmt.Fprintf(to, "%+q %d %+v", name, n.Ino(), a)
	for _, x := range n.Xattrs() {
		fmt.Fprintf(to, " %s=%x", x.Name, x.Value)
	}
	kind := n.Mode() & syscall.S_IFMT
	if kind == syscall.S_IFLNK {
		fmt.Fprintf(to, " -> %q", n.Target())
	}
	if kind == syscall.S_IFREG {
		off, end := n.Extent()
		fmt.Fprintf(to, " layer %d at %d to %d", n.Layer(), off, end)
		for from, until := range n.Data() {
			fmt.Fprintf(to, " [%d %d]", from, until)
		}
	}
	fmt.Fprintln(to)
	if kind == syscall.S_IFDIR {
		for child, of := range n.Children() {
			writeNode(to, of, name+"/"+child)
		}
	}
}
