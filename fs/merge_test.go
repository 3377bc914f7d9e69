package fs_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// checkTree checks what is true of every tree.
func checkTree(t testing.TB, tree *fs.Tree) {
	t.Helper()
	links := make([]uint32, tree.Len()+1)
	next := uint64(2) // number of the next new inode
	queue := []fs.Node{tree.Root()}
	if ino := tree.Root().Ino(); ino != 1 {
		t.Errorf("the root has inode number %d", ino)
	}
	for ; len(queue) > 0; queue = queue[1:] {
		d, subdirs, last := queue[0], uint32(0), ""
		for i := range d.NumChildren() {
			name, n := d.ChildAt(i)
			if name <= last || name == "." || name == ".." || strings.ContainsRune(name, '/') {
				t.Errorf("inode %d: name %q after %q", d.Ino(), name, last)
			}
			last = name
			if found, ok := d.Child(name); !ok || found != n {
				t.Errorf("inode %d: Child(%q) is %v, %v", d.Ino(), name, found.Ino(), ok)
			}
			if n.Ino() > next {
				t.Errorf("inode %d: %q has number %d, want at most %d", d.Ino(), name, n.Ino(), next)
			} else if n.Ino() == next {
				next++
			}
			links[n.Ino()]++
			if !isDir(n) {
				continue
			}
			subdirs++
			if n.Parent() != d {
				t.Errorf("inode %d: its parent is %d, want %d", n.Ino(), n.Parent().Ino(), d.Ino())
			}
			if links[n.Ino()] > 1 {
				t.Fatalf("directory %d has two names", n.Ino())
			}
			queue = append(queue, n)
		}
		if got, want := d.Attr().Nlink, 2+subdirs; got != want {
			t.Errorf("directory %d: nlink %d, want %d", d.Ino(), got, want)
		}
	}
	if next != uint64(tree.Len())+1 {
		t.Errorf("%d inodes, but %d are reachable", tree.Len(), next-1)
	}
	for ino := uint64(2); ino < next; ino++ {
		n, ok := tree.Node(ino)
		if !ok || n.Ino() != ino {
			t.Fatalf("Node(%d): %v, %v", ino, n.Ino(), ok)
		}
		if !isDir(n) && n.Attr().Nlink != links[ino] {
			t.Errorf("inode %d: nlink %d, but %d names", ino, n.Attr().Nlink, links[ino])
		}
	}
}

func TestNoLayers(t *testing.T) {
	tree := merge(t)
	checkTree(t, tree)
	if got := attrs(tree.Root()); got != implied || tree.Len() != 1 {
		t.Errorf("root %s of %d inodes, want %s of 1", got, tree.Len(), implied)
	}
	for _, ino := range []uint64{0, 2, math.MaxUint64} {
		if _, ok := tree.Node(ino); ok {
			t.Errorf("Node(%d) is there", ino)
		}
	}
}

// TestRefused has refusals beyond the table of cases.
func TestRefused(t *testing.T) {
	long := strings.Repeat("a/", 1500)
	cases := []mergeCase{
		{what: "climbs in the middle", stack: stack(layer(file("a/../../b", ""))), err: fs.ErrEscape, errAt: "a/../../b"},
		{what: "whiteout climbs", stack: stack(layer(file("f", "")), layer(whiteout("../f"))), err: fs.ErrEscape, errAt: "../.wh.f"},
		{what: "bad whiteout below a reserved name", stack: stack(layer(file(".wh..wh.x/.wh..", ""))), err: fs.ErrWhiteoutName, errAt: ".wh..wh.x/.wh.."},
		{what: "root as file", stack: stack(layer(file("/", ""))), err: fs.ErrEntry, errAt: "/"},
		{what: "root as hard link", stack: stack(layer(file("a", ""), link(".", "a"))), err: fs.ErrEntry, errAt: "."},
		{what: "child below a fifo of the same layer", stack: stack(layer(fifo("p"), file("p/x", ""))), err: fs.ErrParent, errAt: "p/x"},
		{what: "child below a link of this layer to a lower file", stack: stack(layer(file("a", "")), layer(link("b", "a"), dir("b/c/"))), err: fs.ErrParent, errAt: "b/c/"},
		{what: "child through a symlink to a file", stack: stack(layer(file("a", ""), symlink("l", "a"), file("l/x", ""))), err: fs.ErrParent, errAt: "l/x"},
		{what: "link to the root", stack: stack(layer(link("b", "/"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link to nothing", stack: stack(layer(link("b", ""))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link through a file", stack: stack(layer(file("a", ""), link("b", "a/x"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link through a loop", stack: stack(layer(symlink("l", "l"), link("b", "l/x"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link through nothing", stack: stack(layer(link("b", "no/such"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link below its target", stack: stack(layer(file("a", "1")), layer(link("a/b", "a"))), err: fs.ErrLinkTarget, errAt: "a/b"},
		{what: "link in place of what holds its target", stack: stack(layer(dir("d/"), dir("d/e/"), file("d/e/a", ""), link("d", "d/e/a"))), err: fs.ErrLinkTarget, errAt: "d"},
		{what: "link to a reserved name of a lower layer", stack: stack(layer(file(".wh..wh.x", "")), layer(link("b", ".wh..wh.x"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link to a whiteout", stack: stack(layer(whiteout("x"), link("b", ".wh.x"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "symlink without target", stack: stack(layer(symlink("l", ""))), err: fs.ErrEntry, errAt: "l"},
		{what: "symlink target of 4,096 bytes", stack: stack(layer(symlink("l", strings.Repeat("t", 4096)))), err: fs.ErrEntry, errAt: "l"},
		{what: "unknown type", stack: stack(layer(member{Entry: layerindex.Entry{Type: 'V', Name: "v"}})), err: fs.ErrEntry, errAt: "v"},
		{what: "size below zero", stack: stack(layer(sparse("f", -1, "", nil))), err: fs.ErrEntry, errAt: "f"},
		{what: "size beyond int64", stack: stack(layer(sparse("f", math.MaxInt64, "", nil))), err: fs.ErrEntry, errAt: "f"},
		{what: "nanoseconds", stack: stack(layer(file("f", "", mtime(0, 1e9)))), err: fs.ErrEntry, errAt: "f"},
		{what: "extents overlap", stack: stack(layer(sparse("f", 9, "abcd", []layerindex.Extent{{Off: 0, Size: 2}, {Off: 1, Size: 2}}))), err: fs.ErrEntry, errAt: "f"},
		{what: "extent past the end", stack: stack(layer(sparse("f", 9, "abcd", []layerindex.Extent{{Off: 8, Size: 2}}))), err: fs.ErrEntry, errAt: "f"},
		{what: "extent below zero", stack: stack(layer(sparse("f", 9, "abcd", []layerindex.Extent{{Off: 8, Size: -2}}))), err: fs.ErrEntry, errAt: "f"},
		{what: "extent wraps", stack: stack(layer(sparse("f", 9, "", []layerindex.Extent{{Off: 1, Size: math.MaxInt64}}))), err: fs.ErrEntry, errAt: "f"},
		{what: "more xattr names than listxattr gives", stack: stack(layer(file("f", "", manyXattrs(300)...))), err: fs.ErrEntry, errAt: "f"},
		{
			what:  "the same through hard links",
			stack: stack(layer(file("f", "", manyXattrs(200)...), link("g", "f", manyXattrs(400)[200:]...))), err: fs.ErrEntry, errAt: "g",
		},
		{
			what:  "path too long through a symlink",
			stack: stack(layer(symlink("l", long), file("l/"+long+"x", ""))), err: fs.ErrNameTooLong, errAt: "l/" + long + "x",
		},
		{what: "path of 4,097 bytes", stack: stack(layer(file(path4096+"x", ""))), err: fs.ErrNameTooLong, errAt: path4096 + "x"},
		{what: "link to a lower file that the same layer hides", stack: stack(layer(file("a", "")), layer(whiteout("a"), link("b", "a"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "the same, the whiteout last", stack: stack(layer(file("a", "")), layer(link("b", "a"), whiteout("a"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "link to a lower file below a directory that the same layer hides",
			stack: stack(layer(dir("d/"), file("d/a", "")), layer(opaque("d"), link("b", "d/a"))), err: fs.ErrLinkTarget, errAt: "b"},
		{what: "directory name of 256 bytes", stack: stack(layer(file(strings.Repeat("d", 256)+"/x", ""))), err: fs.ErrNameTooLong, errAt: strings.Repeat("d", 256) + "/x"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			_, err := fs.Merge(t.Context(), layersOf(c.stack...))
			checkRefused(t, c, err)
		})
	}
}

// manyXattrs are xattrs with names of 250 bytes.
func manyXattrs(n int) (opts []option) {
	for i := range n {
		opts = append(opts, xattr(fmt.Sprintf("user.%0245d", i), ""))
	}
	return opts
}

func TestRefusedNamesLayer(t *testing.T) {
	_, err := fs.Merge(t.Context(), layersOf(layer(file("f", "")), layer(file("../etc/passwd", ""))))
	const want = `layer L2: entry "../etc/passwd": name climbs above the root`
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

// TestAccepted has trees beyond the table of cases.
func TestAccepted(t *testing.T) {
	cases := []mergeCase{
		{what: "symlinks of both layers on the way: only this layer's are followed",
			stack: stack(layer(symlink("low", "t"), dir("t/")), layer(symlink("l", "low/x"), file("l/y", "1"))),
			want:  "l->low/x low/ low/x/ low/x/y=1 t/"},
		{what: "child below an absolute and a relative symlink in a directory of the same layer",
			stack: stack(layer(dir("d/"), symlink("d/l", "/t"), file("d/l/y", "1"), symlink("d/m", "t"), file("d/m/z", "2"))),
			want:  "d/ d/l->/t d/m->t d/t/ d/t/z=2 t/ t/y=1"},
		{what: "hard link target through a lower symlink",
			stack: stack(layer(symlink("l", "/t"), dir("t/"), file("t/a", "1")), layer(link("b", "l/a"))),
			want:  "b=1 l->/t t/ t/a=1"},
		{what: "hard link to a symlink of a lower layer, child below the link",
			stack: stack(layer(symlink("l", "t")), layer(link("m", "l"), file("m/x", "1"))),
			want:  "l->t m->t t/ t/x=1"},
		{what: "reserved below a lower file and below nothing",
			stack: stack(layer(file("f", "1")), layer(file("f/.wh..wh.x", "2"), file("no/.wh..wh.x/y", "3"), link("b", "no/.wh..wh.x/y"))),
			want:  "b=3 f=1"},
		{what: "reserved hard link, fifo and directory",
			stack: stack(layer(file("f", "1"), link(".wh..wh.l", "f"), link("g", ".wh..wh.l"), dir(".wh..wh.d/"), fifo(".wh..wh.p"), link("p", "/.wh..wh.p"))),
			want:  "f=1 g=1 p|"},
		{what: "link to a reserved name in place of a directory",
			stack: stack(layer(dir("d/"), file("d/x", "1"), file(".wh..wh.x", "2"), link("d", ".wh..wh.x"))), want: "d=2"},
		{what: "child below a symlink to a reserved name",
			stack: stack(layer(symlink("l", ".wh..wh.d"), file("l/x", "1"))), want: "l->.wh..wh.d"},
		{what: "opaque marker with children", stack: stack(layer(dir("a/"), file("a/x", "1")), layer(file("a/.wh..wh..opq/y", "2"))), want: "a/ a/x=1"},
		{what: "whiteout through a symlink of its own layer",
			stack: stack(layer(dir("t/"), file("t/f", "1")), layer(symlink("l", "t"), whiteout("l/f"))), want: "l->t t/ t/f=1"},
		{what: "child in a directory made through a symlink that is replaced",
			stack: stack(layer(symlink("l", "t"), file("l/x", "1"), dir("l/"), file("l/x", "2"))), want: "l/ l/x=2 t/ t/x=1"},
		{what: "symlink to its own directory, replaced through itself",
			stack: stack(layer(symlink("l", "."), file("l/x", "1"), dir("l/l/"), file("l/y", "2"))), want: "l/ l/y=2 x=1"},
		{what: "child of a directory that was replaced and made again",
			stack: stack(layer(file("d/x", "1"), file("d", "2"), dir("d/"), file("d/y", "3"))), want: "d/ d/y=3"},
		{what: "forty symlinks", stack: stack(symlinkChain(40)), want: chainList(40)},
		{what: "hard link in place of a link to the same inode",
			stack: stack(layer(file("a", "1"), link("b", "a"), link("b", "a"))), want: "a=1 b=1", attrs: map[string]string{"a": "0644 0:0 100 x2"}},
		{what: "link to a file that the same layer hides and has again",
			stack: stack(layer(file("a", "1")), layer(whiteout("a"), file("a", "2"), link("b", "a"))), want: "a=2 b=2"},
		{what: "owners that are none to chown, and the same of a hard link",
			stack: stack(layer(dir("d/", owner(5, 6)), file("a", "1", owner(math.MaxUint32, 6)), file("b", "2", owner(5, 6)), link("c", "b", owner(7, math.MaxUint32))),
				layer(dir("d/", owner(math.MaxUint32, math.MaxUint32)))),
			want: "a=1 b=2 c=2 d/", attrs: map[string]string{"a": "0644 0:6 100 x1", "b": "0644 7:6 100 x2", "d": "0755 0:0 100 x2"}},
		{what: "device numbers of more bits than Linux has",
			stack: stack(layer(device(layerindex.TypeChar, "c", 1<<12+5, 1<<20+6), device(layerindex.TypeBlock, "b", math.MaxUint32, math.MaxUint32))),
			want:  "b:b4095:1048575 c:c5:6"},
		{what: "path of 4,096 bytes", stack: stack(layer(file(path4096, "1"))), want: listOfPath(path4096) + "=1"},
		{what: "link in place of a directory", stack: stack(layer(file("a", "1"), dir("d/"), file("d/x", ""), link("d", "a"))), want: "a=1 d=1"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			tree := merge(t, c.stack...)
			checkTree(t, tree)
			if got := list(t, tree); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			for path, want := range c.attrs {
				if n, err := tree.Lookup(path, false); err != nil || attrs(n) != want {
					t.Errorf("%s: got %s, %v, want %s", path, attrs(n), err, want)
				}
			}
		})
	}
	c := mergeCase{what: "41 symlinks", err: fs.ErrLoop, errAt: "s00/x"}
	_, err := fs.Merge(t.Context(), layersOf(symlinkChain(41)))
	checkRefused(t, c, err)
}

// path4096 is as long as a path may be.
var path4096 = strings.Repeat(strings.Repeat("p", 255)+"/", 15) + strings.Repeat("p", 254) + "/q"

// listOfPath is how list shows the directories on the way to a path, and it.
func listOfPath(p string) string {
	var words []string
	for i, c := range p {
		if c == '/' {
			words = append(words, p[:i+1])
		}
	}
	return strings.Join(append(words, p), " ")
}

// symlinkChain is n symlinks, the last to a directory, and a file below the
// first.
func symlinkChain(n int) []member {
	name := func(i int) string { return "s" + string(rune('0'+i/10)) + string(rune('0'+i%10)) }
	var l []member
	for i := range n {
		l = append(l, symlink(name(i), name(i+1)))
	}
	return append(l, dir(name(n)+"/"), file("s00/x", "1"))
}

func chainList(n int) string {
	var words []string
	for _, m := range symlinkChain(n)[:n] {
		words = append(words, m.Name+"->"+m.Linkname)
	}
	d := words[n-1][len(words[n-1])-3:]
	return strings.Join(append(words, d+"/", d+"/x=1"), " ")
}

func TestReadAt(t *testing.T) {
	tree := merge(t, layer(
		file("f", "0123456789"), file("empty", ""), dir("d/"), fifo("p"),
		sparse("s", 20, "abcdef", []layerindex.Extent{{Off: 2, Size: 3}, {Off: 7, Size: 0}, {Off: 10, Size: 2}, {Off: 12, Size: 1}}),
		sparse("hole", 1<<40, "", []layerindex.Extent{}),
	))
	const s = "\x00\x00abc\x00\x00\x00\x00\x00def\x00\x00\x00\x00\x00\x00\x00"
	for name, content := range map[string]string{"f": "0123456789", "empty": "", "s": s} {
		n, err := tree.Lookup(name, true)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.NewReader(content)
		for off := int64(0); off < 23; off++ {
			for size := 1; size < 23; size++ {
				p, q := make([]byte, size), make([]byte, size)
				gotN, gotErr := n.ReadAt(t.Context(), p, off)
				wantN, wantErr := want.ReadAt(q, off)
				if gotN != wantN || gotErr != wantErr || string(p[:gotN]) != string(q[:wantN]) {
					t.Fatalf("%s: %d bytes at %d: got %q, %v, want %q, %v", name, size, off, p[:gotN], gotErr, q[:wantN], wantErr)
				}
			}
		}
	}
	hole, _ := tree.Lookup("hole", true)
	p := []byte("xxxx")
	if n, err := hole.ReadAt(t.Context(), p, 1<<40-4); n != 4 || err != nil || string(p) != "\x00\x00\x00\x00" {
		t.Errorf("end of a hole of 1 TiB: got %q of %d bytes, %v", p, n, err)
	}
	for name, want := range map[string]error{"d": syscall.EISDIR, "p": syscall.EINVAL, "f": syscall.EINVAL} {
		n, _ := tree.Lookup(name, true)
		if _, err := n.ReadAt(t.Context(), p, -1); err != want {
			t.Errorf("%s: read at -1: got %v, want %v", name, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, _ := tree.Lookup("f", true)
	if _, err := f.ReadAt(ctx, p, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: %v", err)
	}
}
