package fs_test

import (
	"errors"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// A mergeCase is a case of docs/semantics.md.
type mergeCase struct {
	id    string
	what  string
	stack [][]member
	want  string            // as list shows the tree
	attrs map[string]string // as attrs shows some of its inodes
	// If err is set, Merge must refuse the stack at an entry with this name.
	err   error
	errAt string
}

func stack(layers ...[]member) [][]member { return layers }

// implied are the attributes of a directory that no layer describes.
const implied = "0755 0:0 0 x2"

func TestCases(t *testing.T) {
	for _, c := range allCases() {
		t.Run(c.id, func(t *testing.T) {
			tree, err := fs.Merge(t.Context(), layersOf(c.stack...))
			if c.err != nil {
				checkRefused(t, c, err)
				return
			}
			if err != nil {
				t.Fatalf("%s: Merge: %v", c.what, err)
			}
			if got := list(t, tree); got != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
			}
			for path, want := range c.attrs {
				n, err := tree.Lookup(path, false)
				if err != nil {
					t.Errorf("%s: %v", c.what, err)
				} else if got := attrs(n); got != want {
					t.Errorf("%s: %s: got %s, want %s", c.what, path, got, want)
				}
			}
			checkTree(t, tree)
		})
	}
}

func checkRefused(t *testing.T, c mergeCase, err error) {
	t.Helper()
	var entry *fs.EntryError
	switch {
	case !errors.Is(err, c.err):
		t.Errorf("%s: got error %v, want %v", c.what, err, c.err)
	case !errors.As(err, &entry):
		t.Errorf("%s: got error %T, want *EntryError", c.what, err)
	case entry.Name != c.errAt:
		t.Errorf("%s: refused at entry %q, want %q", c.what, entry.Name, c.errAt)
	}
}

func allCases() []mergeCase {
	return slices.Concat(whiteoutCases(), opaqueCases(), typeCases(), attrCases(), linkCases(), nameCases(), specialCases())
}

func whiteoutCases() []mergeCase {
	f := file("f", "1")
	d := layer(dir("d/"), file("d/old", "1"))
	return []mergeCase{
		{id: "A01", what: "whiteout of a file", stack: stack(layer(f, file("g", "2")), layer(whiteout("f"))), want: "g=2"},
		{id: "A02", what: "whiteout of a directory", stack: stack(d, layer(whiteout("d"))), want: ""},
		{id: "A03", what: "whiteout of a symlink", stack: stack(layer(f, symlink("l", "f")), layer(whiteout("l"))), want: "f=1"},
		{id: "A04", what: "whiteout of a device", stack: stack(layer(device(layerindex.TypeChar, "c", 1, 3)), layer(whiteout("c"))), want: ""},
		{id: "A05", what: "whiteout below directories that no layer has", stack: stack(layer(f), layer(whiteout("no/such/f"))), want: "f=1"},
		{id: "A06", what: "whiteout, then the file again", stack: stack(layer(f), layer(whiteout("f"), file("f", "2"))), want: "f=2"},
		{id: "A07", what: "the file, then its whiteout", stack: stack(layer(f), layer(file("f", "2"), whiteout("f"))), want: "f=2"},
		{id: "A08", what: "whiteout, then the directory again", stack: stack(d, layer(whiteout("d"), dir("d/"), file("d/new", "2"))), want: "d/ d/new=2"},
		{id: "A09", what: "the directory again, then its whiteout", stack: stack(d, layer(dir("d/"), file("d/new", "2"), whiteout("d"))), want: "d/ d/new=2"},
		{
			id: "A10", what: "whiteout, then a child without entry for the directory",
			stack: stack(layer(dir("d/", mode(0o700)), file("d/old", "1")), layer(whiteout("d"), file("d/new", "2"))),
			want:  "d/ d/new=2", attrs: map[string]string{"d": implied},
		},
		{id: "A11", what: "whiteout of a file, then a directory", stack: stack(layer(f), layer(whiteout("f"), dir("f/"))), want: "f/"},
		{id: "A12", what: "whiteout of a dot file", stack: stack(layer(file(".f", "1"), f), layer(whiteout(".f"))), want: "f=1"},
		{id: "A13", what: "whiteout of a missing name", stack: stack(layer(f), layer(whiteout("g"))), want: "f=1"},
		{
			id: "A14", what: "whiteout in one layer, a child alone in the next",
			stack: stack(layer(dir("d/", mode(0o700)), file("d/old", "1")), layer(whiteout("d")), layer(file("d/new", "2"))),
			want:  "d/ d/new=2", attrs: map[string]string{"d": implied},
		},
		{id: "A15", what: "whiteout in the first layer", stack: stack(layer(whiteout("f"), file("g", "1"))), want: "g=1"},
		{id: "A16", what: "whiteout with content", stack: stack(layer(f), layer(file(".wh.f", "content"))), want: ""},
		{id: "A17", what: "whiteout that is a directory", stack: stack(d, layer(dir(".wh.d"))), want: ""},
		{id: "A18", what: "whiteout that is a symlink", stack: stack(layer(f), layer(symlink(".wh.f", "x"))), want: ""},
		{id: "A19", what: "file below a directory named .wh.d", stack: stack(d, layer(file(".wh.d/f", "2"))), want: ".wh.d/ .wh.d/f=2 d/ d/old=1"},
		{
			id: "A20", what: ".wh..wh.foo below the root",
			stack: stack(layer(dir("a/"), file("a/foo", "1")), layer(file("a/.wh..wh.foo", "2"))), want: "a/ a/foo=1",
		},
		{
			id: "A21", what: "files of AUFS, and hard links to one",
			stack: stack(layer(file(".wh..wh.aufs", ""), dir(".wh..wh.orph/"), dir(".wh..wh.plnk/"),
				file(".wh..wh.plnk/101.1", "content"), link("f", ".wh..wh.plnk/101.1"), link("g", "f"))),
			want: "f=content g=content", attrs: map[string]string{"f": "0644 0:0 100 x2"},
		},
		{id: "A22", what: "entry .wh.", stack: stack(layer(file("d/.wh.", ""))), err: fs.ErrWhiteoutName, errAt: "d/.wh."},
		{id: "A23", what: "entry .wh..", stack: stack(d, layer(file("d/.wh..", ""))), err: fs.ErrWhiteoutName, errAt: "d/.wh.."},
		{id: "A24", what: "entry .wh...", stack: stack(d, layer(dir("d/.wh.../"))), err: fs.ErrWhiteoutName, errAt: "d/.wh.../"},
		{id: "A25", what: "a file and its whiteout in the only layer", stack: stack(layer(f, whiteout("f"))), want: "f=1"},
		{id: "A26", what: "added again in a later layer", stack: stack(layer(f), layer(whiteout("f")), layer(file("f", "3"))), want: "f=3"},
		{
			id: "A27", what: "whiteout of a and of a/b/c",
			stack: stack(layer(dir("a/"), dir("a/b/"), file("a/b/c", "1")), layer(whiteout("a"), whiteout("a/b/c"))), want: "",
		},
		{id: "A28", what: "whiteout of a/f, then of a", stack: stack(layer(dir("a/"), file("a/f", "1")), layer(whiteout("a/f"), whiteout("a"))), want: ""},
		{id: "A29", what: "the same whiteout twice", stack: stack(layer(f), layer(whiteout("f"), whiteout("f"))), want: ""},
		{
			id: "A30", what: "whiteout through a lower symlink",
			stack: stack(layer(dir("t/"), file("t/f", "1"), symlink("l", "t")), layer(whiteout("l/f"))), want: "l->t t/ t/f=1",
		},
		{id: "A31", what: "whiteout below a lower file", stack: stack(layer(f), layer(whiteout("f/x"))), want: "f=1"},
		{id: "A32", what: "whiteout of ./f", stack: stack(layer(file("./f", "1")), layer(whiteout("./f"))), want: ""},
		{id: "A33", what: "whiteout of ./d/f", stack: stack(layer(dir("./d/"), file("./d/f", "1")), layer(whiteout("./d/f"))), want: "d/"},
	}
}

func opaqueCases() []mergeCase {
	a := layer(dir("a/", mode(0o700)), file("a/old", "1"))
	return []mergeCase{
		{id: "B01", what: "opaque before its siblings", stack: stack(a, layer(dir("a/"), opaque("a"), file("a/new", "2"))), want: "a/ a/new=2"},
		{id: "B02", what: "opaque after its siblings", stack: stack(a, layer(dir("a/"), file("a/new", "2"), opaque("a"))), want: "a/ a/new=2"},
		{
			id: "B03", what: "opaque, no entry for the directory", stack: stack(a, layer(opaque("a"), file("a/new", "2"))),
			want: "a/ a/new=2", attrs: map[string]string{"a": "0700 0:0 100 x2"},
		},
		{id: "B04", what: "opaque in a new directory", stack: stack(layer(file("f", "1")), layer(dir("n/"), opaque("n"), file("n/x", "2"))), want: "f=1 n/ n/x=2"},
		{id: "B05", what: "opaque at the root", stack: stack(a, layer(file(".wh..wh..opq", ""), file("new", "2"))), want: "new=2"},
		{
			id: "B06", what: "opaque in a nested directory",
			stack: stack(layer(dir("a/"), file("a/x", "1"), dir("a/b/"), file("a/b/y", "1")), layer(opaque("a/b"), file("a/b/z", "2"))),
			want:  "a/ a/b/ a/b/z=2 a/x=1",
		},
		{id: "B07", what: "opaque, a name of below again", stack: stack(a, layer(opaque("a"), file("a/old", "2"))), want: "a/ a/old=2"},
		{
			id: "B08", what: "opaque and whiteout in one directory",
			stack: stack(layer(dir("a/"), file("a/x", "1"), file("a/y", "1")), layer(dir("a/"), opaque("a"), whiteout("a/x"), file("a/z", "2"))),
			want:  "a/ a/z=2",
		},
		{id: "B09", what: "opaque in a middle layer", stack: stack(a, layer(opaque("a"), file("a/m", "2")), layer(file("a/t", "3"))), want: "a/ a/m=2 a/t=3"},
		{id: "B10", what: "opaque and nothing else", stack: stack(a, layer(opaque("a"))), want: "a/"},
		{
			id: "B11", what: "opaque through a lower symlink",
			stack: stack(layer(dir("t/"), file("t/old", "1"), symlink("l", "t")), layer(opaque("l"), file("l/new", "2"))),
			want:  "l/ l/new=2 t/ t/old=1",
		},
		{id: "B12", what: "whiteout, directory, opaque, child", stack: stack(a, layer(whiteout("a"), dir("a/"), opaque("a"), file("a/new", "2"))), want: "a/ a/new=2"},
		{id: "B13", what: "opaque in the first layer", stack: stack(layer(dir("a/"), opaque("a"), file("a/x", "1"))), want: "a/ a/x=1"},
		{id: "B14", what: "opaque marker that is a directory", stack: stack(a, layer(dir("a/.wh..wh..opq/"), file("a/new", "2"))), want: "a/ a/new=2"},
		{
			id: "B15", what: "opaque, then a/d/new without entry for a/d",
			stack: stack(layer(dir("a/"), dir("a/d/", mode(0o700)), file("a/d/old", "1")), layer(opaque("a"), file("a/d/new", "2"))),
			want:  "a/ a/d/ a/d/new=2", attrs: map[string]string{"a/d": implied},
		},
		{id: "B16", what: "opaque below a lower file", stack: stack(layer(file("f", "1")), layer(opaque("f"))), want: "f=1"},
	}
}

func typeCases() []mergeCase {
	t := layer(dir("t/"), file("t/x", "1"))
	lt := append(layer(symlink("l", "t")), t...)
	return []mergeCase{
		{id: "C01", what: "directory over file", stack: stack(layer(file("p", "1")), layer(dir("p/"), file("p/x", "2"))), want: "p/ p/x=2"},
		{id: "C02", what: "file over directory", stack: stack(t, layer(file("t", "2"))), want: "t=2"},
		{id: "C03", what: "symlink over directory", stack: stack(t, layer(symlink("t", "u"))), want: "t->u"},
		{id: "C04", what: "directory over a symlink to a directory", stack: stack(lt, layer(dir("l/"), file("l/y", "2"))), want: "l/ l/y=2 t/ t/x=1"},
		{
			id: "C05", what: "child below a lower symlink", stack: stack(lt, layer(file("l/y", "2"))),
			want: "l/ l/y=2 t/ t/x=1", attrs: map[string]string{"l": implied},
		},
		{id: "C06", what: "child below a symlink of the same layer", stack: stack(t, layer(symlink("l", "t"), file("l/y", "2"))), want: "l->t t/ t/x=1 t/y=2"},
		{id: "C07", what: "the same, absolute", stack: stack(t, layer(symlink("l", "/t"), file("l/y", "2"))), want: "l->/t t/ t/x=1 t/y=2"},
		{
			id: "C08", what: "child below a dangling symlink of the same layer", stack: stack(layer(symlink("l", "no/such"), file("l/y", "2"))),
			want: "l->no/such no/ no/such/ no/such/y=2", attrs: map[string]string{"no/such": implied},
		},
		{id: "C09", what: "child below a loop", stack: stack(layer(symlink("l", "m"), symlink("m", "l"), file("l/y", "2"))), err: fs.ErrLoop, errAt: "l/y"},
		{
			id: "C10", what: "child below an escaping symlink of the same layer",
			stack: stack(layer(dir("d/"), symlink("d/l", "../../../out"), file("d/l/y", "2"))),
			want:  "d/ d/l->../../../out out/ out/y=2",
		},
		{id: "C11", what: "directory, file, directory", stack: stack(t, layer(file("t", "2")), layer(dir("t/"), file("t/y", "3"))), want: "t/ t/y=3"},
		{
			id: "C12", what: "child below a lower file", stack: stack(layer(file("p", "1")), layer(file("p/x", "2"))),
			want: "p/ p/x=2", attrs: map[string]string{"p": implied},
		},
		{id: "C13", what: "child below a file of the same layer", stack: stack(layer(file("p", "1"), file("p/x", "2"))), err: fs.ErrParent, errAt: "p/x"},
		{id: "C14", what: "file over symlink", stack: stack(layer(symlink("l", "f"), file("f", "1")), layer(file("l", "2"))), want: "f=1 l=2"},
		{id: "C15", what: "fifo over file", stack: stack(layer(file("f", "1")), layer(fifo("f"))), want: "f|"},
		{
			id: "C16", what: "symlink, then directory, in one layer",
			stack: stack(layer(dir("t/"), symlink("l", "t"), dir("l/"), file("l/x", "1"))), want: "l/ l/x=1 t/",
		},
		{id: "C17", what: "directory, symlink, directory", stack: stack(t, layer(symlink("t", "u")), layer(dir("t/"), file("t/y", "3"))), want: "t/ t/y=3"},
		{
			id: "C18", what: "child below a lower absolute symlink, two levels down",
			stack: stack(append(layer(symlink("l", "/t")), t...), layer(file("l/a/b", "2"))), want: "l/ l/a/ l/a/b=2 t/ t/x=1",
		},
	}
}

func attrCases() []mergeCase {
	d := layer(dir("d/", mode(0o700), owner(5, 6)), file("d/x", "1"))
	const dAttrs = "0700 5:6 100 x2"
	return []mergeCase{
		{
			id: "D01", what: "directory again, other mode and owner", stack: stack(d, layer(dir("d/", mode(0o750), owner(7, 8), mtime(200, 0)))),
			want: "d/ d/x=1", attrs: map[string]string{"d": "0750 7:8 200 x2"},
		},
		{
			id: "D02", what: "child only", stack: stack(d, layer(file("d/y", "2"))),
			want: "d/ d/x=1 d/y=2", attrs: map[string]string{"d": dAttrs},
		},
		{
			id: "D03", what: "parents that no layer lists", stack: stack(layer(file("a/b/c", "1", owner(5, 6)))),
			want: "a/ a/b/ a/b/c=1", attrs: map[string]string{"a": "0755 0:0 0 x3", "a/b": implied, "/": "0755 0:0 0 x3"},
		},
		{
			id: "D04", what: "root entry ./", stack: stack(layer(dir("./", mode(0o711), owner(5, 6))), layer(file("f", "1"))),
			want: "f=1", attrs: map[string]string{"/": "0711 5:6 100 x2"},
		},
		{
			id: "D05", what: "mtime of a directory that gets children", stack: stack(layer(dir("d/", mtime(7, 8)), file("d/x", "1"))),
			want: "d/ d/x=1", attrs: map[string]string{"d": "0755 0:0 7.000000008 x2"},
		},
		{
			id: "D06", what: "directory entry after its children", stack: stack(layer(file("d/x", "1"), dir("d/", mode(0o700), owner(5, 6)))),
			want: "d/ d/x=1", attrs: map[string]string{"d": dAttrs},
		},
		{
			id: "D07", what: "directory twice in a layer", stack: stack(layer(dir("d/", mode(0o711)), file("d/x", "1"), dir("d/", mode(0o700), owner(5, 6)))),
			want: "d/ d/x=1", attrs: map[string]string{"d": dAttrs},
		},
		{
			id: "D08", what: "directory with xattr, again without", stack: stack(layer(dir("d/", xattr("user.a", "1"))), layer(dir("d/"))),
			want: "d/", attrs: map[string]string{"d": "0755 0:0 100 x2"},
		},
		{
			id: "D09", what: "child only, directory with xattr", stack: stack(layer(dir("d/", xattr("user.a", "1"))), layer(file("d/x", "2"))),
			want: "d/ d/x=2", attrs: map[string]string{"d": "0755 0:0 100 x2 user.a=1"},
		},
		{
			id: "D10", what: "setuid, setgid, sticky, no permissions",
			stack: stack(layer(file("s", "", mode(0o6755)), dir("t/", mode(0o1777)), file("n", "", mode(0)))),
			want:  "n= s= t/", attrs: map[string]string{"s": "6755 0:0 100 x1", "t": "1777 0:0 100 x2", "n": "0000 0:0 100 x1"},
		},
		{
			id: "D11", what: "mtime of a lower directory, child added", stack: stack(d, layer(file("d/y", "2", mtime(200, 0)))),
			want: "d/ d/x=1 d/y=2", attrs: map[string]string{"d": dAttrs},
		},
		{
			id: "D12", what: "mtime of a lower directory, child removed", stack: stack(d, layer(whiteout("d/x"))),
			want: "d/", attrs: map[string]string{"d": dAttrs},
		},
		{
			id: "D13", what: "root entry / in an upper layer", stack: stack(layer(file("f", "1")), layer(dir("/", mode(0o700), owner(1, 2)))),
			want: "f=1", attrs: map[string]string{"/": "0700 1:2 100 x2"},
		},
	}
}

func linkCases() []mergeCase {
	a := layer(file("a", "1"))
	two := map[string]string{"a": "0644 0:0 100 x2", "b": "0644 0:0 100 x2"}
	return []mergeCase{
		{id: "E01", what: "hard link", stack: stack(layer(file("a", "1"), link("b", "a"))), want: "a=1 b=1", attrs: two},
		{id: "E02", what: "link before its target", stack: stack(layer(link("b", "a"), file("a", "1"))), err: fs.ErrLinkTarget, errAt: "b"},
		{id: "E03", what: "link to a file of a lower layer", stack: stack(a, layer(link("b", "a"))), want: "a=1 b=1", attrs: two},
		{
			id: "E04", what: "target whited out later", stack: stack(layer(file("a", "1"), link("b", "a")), layer(whiteout("a"))),
			want: "b=1", attrs: map[string]string{"b": "0644 0:0 100 x1"},
		},
		{
			id: "E05", what: "one name overwritten later", stack: stack(layer(file("a", "1"), link("b", "a")), layer(file("a", "2"))),
			want: "a=2 b=1", attrs: map[string]string{"a": "0644 0:0 100 x1", "b": "0644 0:0 100 x1"},
		},
		{
			id: "E06", what: "link to a symlink", stack: stack(layer(symlink("a", "x"), link("b", "a"))),
			want: "a->x b->x", attrs: map[string]string{"b": "0777 0:0 100 x2"},
		},
		{id: "E07", what: "link to /a", stack: stack(layer(file("a", "1"), link("b", "/a"))), want: "a=1 b=1", attrs: two},
		{id: "E08", what: "link to ./a", stack: stack(layer(file("a", "1"), link("b", "./a"))), want: "a=1 b=1", attrs: two},
		{id: "E09", what: "target missing", stack: stack(a, layer(link("b", "no"))), err: fs.ErrLinkTarget, errAt: "b"},
		{
			id: "E10", what: "target through a symlink to a directory",
			stack: stack(layer(dir("d/"), file("d/a", "1"), symlink("l", "d"), link("b", "l/a"))),
			want:  "b=1 d/ d/a=1 l->d", attrs: map[string]string{"b": "0644 0:0 100 x2"},
		},
		{id: "E11", what: "link to a directory", stack: stack(layer(dir("d/"), link("b", "d"))), err: fs.ErrLinkTarget, errAt: "b"},
		{
			id: "E12", what: "link to a fifo", stack: stack(layer(fifo("a"), link("b", "a"))),
			want: "a| b|", attrs: map[string]string{"b": "0644 0:0 100 x2"},
		},
		{id: "E13", what: "link to itself", stack: stack(a, layer(file("a", "1"), link("a", "./a"))), err: fs.ErrLinkTarget, errAt: "a"},
		{id: "E14", what: "link to ../../a", stack: stack(layer(file("a", "1"), link("b", "../../a"))), want: "a=1 b=1", attrs: two},
		{
			id: "E15", what: "a, link b, a again", stack: stack(layer(file("a", "1"), link("b", "a"), file("a", "2"))),
			want: "a=2 b=1", attrs: map[string]string{"a": "0644 0:0 100 x1", "b": "0644 0:0 100 x1"},
		},
		{id: "E16", what: "file and link in a higher layer", stack: stack(layer(file("a", "0")), layer(file("a", "1"), link("b", "a"))), want: "a=1 b=1", attrs: two},
		{
			id: "E17", what: "link over a file, to another of a lower layer", stack: stack(layer(file("a", "1"), file("b", "2")), layer(link("b", "a"))),
			want: "a=1 b=1", attrs: two,
		},
		{
			id: "E18", what: "link with other attributes",
			stack: stack(layer(file("a", "1", xattr("user.a", "1")), link("b", "a", mode(0o4750), owner(5, 6), mtime(200, 5), xattr("user.b", "2")))),
			want:  "a=1 b=1", attrs: map[string]string{"a": "4750 5:6 200.000000005 x2 user.a=1 user.b=2"},
		},
	}
}

func nameCases() []mergeCase {
	name255, name256 := strings.Repeat("n", 255), strings.Repeat("n", 256)
	deep := strings.Repeat(name255[:199]+"/", 21) // 4,200 bytes
	return []mergeCase{
		{
			id: "F01", what: "names to be cleaned",
			stack: stack(layer(file("./b", "1"), file("/c", "2"), file("d//e", "3"), file("f/./g", "4"), file("h/../i", "5"))),
			want:  "b=1 c=2 d/ d/e=3 f/ f/g=4 i=5",
		},
		{id: "F02", what: "name ../x", stack: stack(layer(file("../x", "1"))), err: fs.ErrEscape, errAt: "../x"},
		{id: "F03", what: "file twice", stack: stack(layer(file("f", "1"), file("f", "2"))), want: "f=2"},
		{id: "F04", what: "file, then directory", stack: stack(layer(file("f", "1"), dir("f/"), file("f/x", "2"))), want: "f/ f/x=2"},
		{id: "F05", what: "directory, then file", stack: stack(layer(dir("f/"), file("f/x", "1"), file("f", "2"))), want: "f=2"},
		{id: "F06", what: "name that is not UTF-8", stack: stack(layer(file("\xff\xfe", "1"))), want: "\xff\xfe=1"},
		{id: "F07", what: "name with a newline", stack: stack(layer(file("a\nb", "1"))), want: "a\nb=1"},
		{id: "F08", what: "name of 255 bytes", stack: stack(layer(file(name255, "1"))), want: name255 + "=1"},
		{id: "F09", what: "name of 256 bytes", stack: stack(layer(file(name256, "1"))), err: fs.ErrNameTooLong, errAt: name256},
		{id: "F10", what: "empty name", stack: stack(layer(file("", "1"), file("f", "2"))), want: "f=2"},
		{id: "F11", what: "entry ..", stack: stack(layer(dir(".."))), err: fs.ErrEscape, errAt: ".."},
		{id: "F13", what: "whiteout .wh.x/", stack: stack(layer(file("x", "1")), layer(dir(".wh.x/"))), want: ""},
		{id: "F14", what: "symlink whose name ends in a slash", stack: stack(layer(symlink("l/", "t"))), want: "l->t"},
		{id: "F16", what: "path of 4,200 bytes", stack: stack(layer(file(deep+"f", "1"))), err: fs.ErrNameTooLong, errAt: deep + "f"},
		{
			id: "F17", what: "root entry /", stack: stack(layer(dir("/", mode(0o700), owner(3, 4), xattr("user.r", "1")))),
			want: "", attrs: map[string]string{"/": "0700 3:4 100 x2 user.r=1"},
		},
	}
}

func specialCases() []mergeCase {
	twice := layer(dir("d/"), file("d/a", "1"), link("d/b", "d/a"), symlink("l", "d"), opaque("d"), whiteout("x"))
	return []mergeCase{
		{
			id: "G01", what: "devices and fifo",
			stack: stack(layer(device(layerindex.TypeChar, "c", 1, 3), device(layerindex.TypeBlock, "b", 259, 1<<20-1), fifo("p"))),
			want:  "b:b259:1048575 c:c1:3 p|",
		},
		{
			id: "G02", what: "character device 0:0", stack: stack(layer(file("f", "1")), layer(device(layerindex.TypeChar, "f", 0, 0))),
			want: "f:c0:0",
		},
		{
			id: "G03", what: "trusted.overlay xattrs", stack: stack(layer(dir("d/"), file("d/x", "1")), layer(dir("d/", xattr("trusted.overlay.opaque", "y"), xattr("trusted.x", "1")))),
			want: "d/ d/x=1", attrs: map[string]string{"d": "0755 0:0 100 x2 trusted.x=1"},
		},
		{
			id: "G04", what: "user.overlay xattrs", stack: stack(layer(dir("d/"), file("d/x", "1")), layer(dir("d/", xattr("user.overlay.opaque", "y")))),
			want: "d/ d/x=1", attrs: map[string]string{"d": "0755 0:0 100 x2 user.overlay.opaque=y"},
		},
		{
			id: "G05", what: "file capabilities", stack: stack(layer(file("f", "", xattr("security.capability", capability(2))))),
			want: "f=", attrs: map[string]string{"f": "0644 0:0 100 x1 security.capability=" + capability(2)},
		},
		{
			id: "G08", what: "xattr with binary value, sorted, the later of two",
			stack: stack(layer(file("f", "", xattr("user.b", "\x00\n="), xattr("user.a", "1"), xattr("user.a", "")))),
			want:  "f=", attrs: map[string]string{"f": "0644 0:0 100 x1 user.a= user.b=\x00\n="},
		},
		{
			id: "G09", what: "user xattr on a symlink",
			stack: stack(layer(file("t", ""), symlink("l", "t", xattr("user.a", "1"), xattr("trusted.a", "2")), fifo("p", xattr("user.a", "1")))),
			want:  "l->t p| t=", attrs: map[string]string{"l": "0777 0:0 100 x1 trusted.a=2", "t": "0644 0:0 100 x1", "p": "0644 0:0 100 x1"},
		},
		{
			id: "G11", what: "uid 4000000000", stack: stack(layer(file("f", "", owner(4000000000, math.MaxUint32-1)))),
			want: "f=", attrs: map[string]string{"f": "0644 4000000000:4294967294 100 x1"},
		},
		{
			id: "G12", what: "mtime before 1970, with nanoseconds", stack: stack(layer(file("f", "", mtime(-1001, 500000000)))),
			want: "f=", attrs: map[string]string{"f": "0644 0:0 -1001.500000000 x1"},
		},
		{id: "H01", what: "empty layer", stack: stack(layer(file("f", "1")), layer()), want: "f=1"},
		{
			id: "H03", what: "the same layer twice", stack: stack(twice, twice), want: "d/ d/a=1 d/b=1 l->d",
			attrs: map[string]string{"d/a": "0644 0:0 100 x2"},
		},
	}
}

// scannerCases are the ids whose question is how a tar is read.
var scannerCases = []string{"F12", "F15", "G06", "G07", "G10", "G13", "H02", "H04", "H05", "H06", "H07", "H08"}

// TestCasesDocumented holds docs/semantics.md and the cases against each other.
func TestCasesDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(scannerCases)
	for _, c := range allCases() {
		want = append(want, c.id)
	}
	slices.Sort(want)
	if len(slices.Compact(slices.Clone(want))) != len(want) {
		t.Errorf("an id has two cases: %v", want)
	}
	got := regexp.MustCompile(`\b[A-H][0-9]{2}\b`).FindAllString(string(doc), -1)
	slices.Sort(got)
	got = slices.Compact(got)
	for _, id := range want {
		if !slices.Contains(got, id) {
			t.Errorf("docs/semantics.md does not mention %s", id)
		}
	}
	for _, id := range got {
		if !slices.Contains(want, id) {
			t.Errorf("docs/semantics.md mentions %s, which has no test", id)
		}
	}
}
