package treediff

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	l "github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

type members = []l.Member

// TestAttributes: each thing that can differ, alone and with others.
func TestAttributes(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b members
		opts Options
		want []string
	}{
		{name: "nothing", a: members{l.Dir("d"), l.File("d/f", "x")}, b: members{l.Dir("d"), l.File("d/f", "x")}},
		{name: "content", a: members{l.File("f", "one")}, b: members{l.File("f", "two")}, want: []string{"~ f content"}},
		{name: "size", a: members{l.File("f", "one")}, b: members{l.File("f", "three")}, want: []string{"~ f content"}},
		{name: "emptied", a: members{l.File("f", "one")}, b: members{l.File("f", "")}, want: []string{"~ f content"}},
		{name: "mode", a: members{l.File("f", "x"), l.Dir("d")}, b: members{l.File("f", "x", l.Mode(0o4755)), l.Dir("d", l.Mode(0o1777))}, want: []string{"~ d mode", "~ f mode"}},
		{name: "mode of symlinks", a: members{l.Symlink("s", "x", l.Mode(0o777))}, b: members{l.Symlink("s", "x", l.Mode(0o644))}},
		{name: "user", a: members{l.File("f", "x", l.Owner(1, 2))}, b: members{l.File("f", "x", l.Owner(3, 2))}, want: []string{"~ f owner"}},
		{name: "group", a: members{l.Symlink("s", "x", l.Owner(1, 2))}, b: members{l.Symlink("s", "x", l.Owner(1, 4_000_000_000))}, want: []string{"~ s owner"}},
		{name: "second", a: members{l.File("f", "x", l.MTime(1, 0))}, b: members{l.File("f", "x", l.MTime(-1, 0))}, want: []string{"~ f time"}},
		{name: "nanosecond", a: members{l.File("f", "x", l.MTime(1, 0))}, b: members{l.File("f", "x", l.MTime(1, 1))}, want: []string{"~ f time"}},
		{name: "time of a directory", a: members{l.Dir("d", l.MTime(1, 0))}, b: members{l.Dir("d", l.MTime(2, 0))}},
		{name: "time of a directory, asked for", a: members{l.Dir("d", l.MTime(1, 0))}, b: members{l.Dir("d", l.MTime(2, 0))}, opts: Options{DirTimes: true}, want: []string{"~ d time"}},
		{name: "target", a: members{l.Symlink("s", "x")}, b: members{l.Symlink("s", "y")}, want: []string{"~ s target"}},
		{name: "device", a: members{l.Device(layerindex.TypeChar, "c", 1, 3)}, b: members{l.Device(layerindex.TypeChar, "c", 1, 5)}, want: []string{"~ c device"}},
		{name: "kind of device", a: members{l.Device(layerindex.TypeChar, "c", 1, 3)}, b: members{l.Device(layerindex.TypeBlock, "c", 1, 3)}, want: []string{"~ c type"}},
		{name: "file and symlink", a: members{l.File("f", "x", l.Mode(0o600))}, b: members{l.Symlink("f", "x")}, want: []string{"~ f type"}},
		{name: "fifo and file", a: members{l.Fifo("f")}, b: members{l.File("f", "x", l.Mode(0o600), l.Owner(1, 1))}, want: []string{"~ f type,mode,owner"}},
		{name: "directory and file", a: members{l.Dir("d"), l.File("d/a", ""), l.Dir("d/b"), l.File("d.x", "")}, b: members{l.File("d", "", l.Mode(0o755)), l.File("d.x", "")},
			want: []string{"~ d type", "- d/a", "- d/b"}},
		{name: "file and directory", a: members{l.File("d", "", l.Mode(0o755))}, b: members{l.Dir("d"), l.Dir("d/b"), l.File("d/b/c", "x")}, want: []string{"~ d type", "+ d/b", "+ d/b/c"}},
		{name: "xattr value", a: members{l.File("f", "x", l.Xattr("user.a", "1"))}, b: members{l.File("f", "x", l.Xattr("user.a", "\x00"))}, want: []string{"~ f xattrs"}},
		{name: "xattr added", a: members{l.Dir("f")}, b: members{l.Dir("f", l.Xattr("user.x", "x"))}, want: []string{"~ f xattrs"}},
		{name: "order of xattrs", a: members{l.File("f", "x", l.Xattr("user.a", "1"), l.Xattr("user.b", "2"))}, b: members{l.File("f", "x", l.Xattr("user.b", "2"), l.Xattr("user.a", "1"))}},
		{name: "all of it", a: members{l.File("f", "x")}, b: members{l.File("f", "y", l.Mode(0), l.Owner(1, 1), l.MTime(1, 1), l.Xattr("user.a", ""))}, want: []string{"~ f content,mode,owner,time,xattrs"}},
		{name: "all of it, ignored", a: members{l.File("f", "x"), l.Symlink("s", "x")}, b: members{l.File("f", "x", l.Mode(0), l.Owner(1, 1), l.MTime(1, 1), l.Xattr("user.a", "")), l.Symlink("s", "y")},
			opts: Options{Ignore: ^What(0)}, want: []string{"~ s target"}},
		{name: "the root", a: members{l.Dir("./", l.Mode(0o700)), l.File("f", "")}, b: members{l.Dir("./"), l.File("f", "")}, want: []string{"~  mode"}},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, tt.a, tt.b, &tt.opts, tt.want...) })
	}
}

// TestOrder: paths come in the order of their bytes, whatever side they are on.
func TestOrder(t *testing.T) {
	a := members{l.Dir("a"), l.File("a/x", ""), l.File("a-", ""), l.File("a.b", "1"), l.Dir("gone"), l.File("gone/1", ""), l.File("gone\x01", ""), l.File("\xff", "1")}
	b := members{l.Dir("a"), l.File("a/y", ""), l.File("a.b", "2"), l.Dir("a.c"), l.File("a.c/z", ""), l.File("a0", ""), l.File("\xff", "2"), l.File("é", "")}
	want(t, a, b, nil, "- a-", "~ a.b content", "+ a.c", "+ a.c/z", "- a/x", "+ a/y", "+ a0", "- gone", "- gone\x01", "- gone/1", "+ é", "~ \xff content")
}

// TestHardLinks: a link that one side alone has is a change of the path that became one,
// or no longer is.
func TestHardLinks(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b members
		opts *Options
		want []string
	}{
		{name: "alike", a: members{l.File("f", "x"), l.Link("g", "f")}, b: members{l.File("g", "x"), l.Link("f", "g")}},
		{name: "no longer linked", a: members{l.File("f", "x"), l.Link("g", "f"), l.Link("h", "f")}, b: members{l.File("f", "x"), l.File("g", "x"), l.Link("h", "f")}, want: []string{"~ g hardlinks"}},
		{name: "now linked", a: members{l.File("f", "x"), l.File("g", "x")}, b: members{l.File("f", "x"), l.Link("g", "f")}, want: []string{"~ g hardlinks"}},
		{name: "ignored", a: members{l.File("f", "x"), l.File("g", "x")}, b: members{l.File("f", "x"), l.Link("g", "f")}, opts: &Options{Ignore: HardLinks}},
		{name: "first removed", a: members{l.File("f", "x"), l.Link("g", "f"), l.Link("h", "f")}, b: members{l.File("g", "x"), l.Link("h", "g")}, want: []string{"- f"}},
		{name: "first added", a: members{l.File("g", "x"), l.Link("h", "g")}, b: members{l.File("a", "x"), l.Link("g", "a"), l.Link("h", "a")}, want: []string{"+ a"}},
		{name: "other partner", a: members{l.File("f", "x"), l.File("g", "x"), l.Link("h", "f")}, b: members{l.File("f", "x"), l.File("g", "x"), l.Link("h", "g")}, want: []string{"~ h hardlinks"}},
		{name: "content of all", a: members{l.File("f", "x"), l.Link("g", "f")}, b: members{l.File("f", "y"), l.Link("g", "f")}, want: []string{"~ f content", "~ g content"}},
		{name: "fifos", a: members{l.Fifo("f"), l.Link("g", "f")}, b: members{l.Fifo("f"), l.Fifo("g")}, want: []string{"~ g hardlinks"}},
		{name: "file and symlink", a: members{l.File("f", "x"), l.Link("g", "f")}, b: members{l.File("f", "x"), l.Symlink("g", "f")}, want: []string{"~ g type"}},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, tt.a, tt.b, tt.opts, tt.want...) })
	}
}

// TestHardLinksAreReadOnce: links are one content.
func TestHardLinksAreReadOnce(t *testing.T) {
	a := members{l.File("f0", "content"), l.Link("f1", "f0"), l.Link("f2", "f0"), l.Link("f3", "f0")}
	b := append(slices.Clone(a[1:1]), l.File("f0", "CONTENT"), a[1], a[2], a[3])
	x, y, contents := two(t, a, b)
	contents[0].noDigests, contents[1].noDigests = true, true
	if got := textOf(t.Context(), x, y, nil); got != "~ f0 content\n~ f1 content\n~ f2 content\n~ f3 content" {
		t.Errorf("got\n%s", got)
	}
	// One of .side, one of the links.
	if n := contents[0].reads.Load(); n != 2 {
		t.Errorf("the first side was read %d times", n)
	}
}

// TestXattrNames: the names are those whose values are not the same, each once.
func TestXattrNames(t *testing.T) {
	x, y, _ := two(t, members{l.File("f", "", l.Xattr("user.same", "1"), l.Xattr("user.gone", "1"), l.Xattr("user.other", "1"))},
		members{l.File("f", "", l.Xattr("user.same", "1"), l.Xattr("user.new", "1"), l.Xattr("user.other", "2"))})
	a, _ := x.Lookup("/f", false)
	b, _ := y.Lookup("/f", false)
	if got := XattrNames(a, b); !slices.Equal(got, []string{"user.gone", "user.new", "user.other"}) {
		t.Errorf("got %q", got)
	}
}

// TestWhat: words and their sets.
func TestWhat(t *testing.T) {
	all := Type | Content | Target | Device | Mode | Owner | Time | Xattrs | HardLinks
	var back What
	for _, word := range all.Words() {
		w, ok := ParseWhat(word)
		if !ok || w.String() != word {
			t.Errorf("%s: got %s, %t", word, w, ok)
		}
		back |= w
	}
	if back != all || len(all.Words()) != 9 {
		t.Errorf("got %s of %s", back, all)
	}
	if _, ok := ParseWhat("colour"); ok || What(0).String() != "" {
		t.Error("a word that is none")
	}
	if Added.String()+Removed.String()+Changed.String() != "addedremovedchanged" {
		t.Error("the words of kinds")
	}
}

// TestOneSide: the zero Node is nothing.
func TestOneSide(t *testing.T) {
	tree, content := treeOf(t, l.Dir("d"), l.File("d/f", "x"), l.Symlink("s", "d"))
	for c, err := range Compare(t.Context(), fs.Node{}, fs.Node{}, nil) {
		t.Errorf("nothing differs from nothing: %s", text(c, err))
	}
	var got []string
	for c, err := range Compare(t.Context(), fs.Node{}, tree.Root(), nil) {
		if c.Old != (fs.Node{}) || c.New == (fs.Node{}) {
			t.Errorf("%s: has the nodes %v and %v", c.Path, c.Old, c.New)
		}
		got = append(got, text(c, err))
	}
	for c, err := range Compare(t.Context(), tree.Root(), fs.Node{}, nil) {
		if c.Old == (fs.Node{}) || c.New != (fs.Node{}) {
			t.Errorf("%s: has the nodes %v and %v", c.Path, c.Old, c.New)
		}
		got = append(got, text(c, err))
	}
	if s := strings.Join(got, ","); s != "+,+ d,+ d/f,+ s,-,- d,- d/f,- s" {
		t.Errorf("got %s", s)
	}
	if n := content.reads.Load() + content.digests.Load(); n != 0 {
		t.Errorf("the layer was asked %d times", n)
	}
	f, _ := tree.Lookup("/d/f", false)
	s, _ := tree.Lookup("/s", false)
	for c, err := range Compare(t.Context(), f, s, nil) {
		if text(c, err) != "~  type,mode" && text(c, err) != "~  type" {
			t.Errorf("got %s", text(c, err))
		}
	}
}

// TestSamePlace: files at one place of a layer are the same, unless offsets mean
// something else on the two sides.
func TestSamePlace(t *testing.T) {
	list := members{l.File("f", "x"), l.Sparse("s", 1<<40, "ab", []layerindex.Extent{{Off: 1 << 39, Size: 2}})}
	a, contentA := treeOf(t, list...)
	b, contentB := treeOf(t, list...)
	contentA.noDigests, contentB.noDigests = true, true
	asked := 0
	if got := textOf(t.Context(), a, b, &Options{SameOffsets: func(digest.Digest) bool { asked++; return true }}); got != "" || asked != 2 {
		t.Errorf("got %q after %d questions", got, asked)
	}
	if n := contentA.reads.Load() + contentB.reads.Load() + contentA.digests.Load(); n != 0 {
		t.Errorf("the layer was asked %d times", n)
	}
	if got := textOf(t.Context(), a, b, &Options{SameOffsets: func(digest.Digest) bool { return false }}); got != "" || contentA.reads.Load() != 2 || contentB.reads.Load() != 2 { // not a tebibyte of hole
		t.Errorf("got %q after %d and %d reads", got, contentA.reads.Load(), contentB.reads.Load())
	}
}

// TestRandom compares random trees, with each other and by the text of fs.Tree.Dump.
func TestRandom(t *testing.T) {
	testenv.Slow(t)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		x, y, contents := two(t, randomMembers(r), randomMembers(r))
		contents[0].noDigests, contents[1].noDigests = seed%2 == 0, seed%3 == 0
		got := textOf(t.Context(), x, y, &Options{DirTimes: true, Ignore: HardLinks})
		if want := dumped(t, x, y); got != want {
			t.Fatalf("seed %d: got\n%s\nwant\n%s", seed, got, want)
		}
	}
}

// randomMembers makes few names, so that trees have many of them in common.
func randomMembers(r *rand.Rand) members {
	all := members{l.Dir("a"), l.Dir("b"), l.Dir("a/a"), l.Dir("a/d")}
	for _, name := range []string{"a/a/a", "a/a.", "a/b", "a/c", "b/a", "b/b", "c", "d", "a!", "a/d/e"} {
		opts := []l.Option{l.MTime(int64(r.IntN(2)), 0), l.Owner(uint32(r.IntN(2)), 0)}
		switch r.IntN(8) {
		case 0:
			all = append(all, l.Symlink(name, []string{"a", "b"}[r.IntN(2)], append(opts, l.Mode(0o777))...))
		case 1:
			all = append(all, l.Dir(name, opts...))
		case 2:
			all = append(all, l.Device(layerindex.TypeBlock, name, 8, r.Uint32N(2), opts...))
		case 3:
			extents := []layerindex.Extent{{Off: int64(r.IntN(3)), Size: 1}, {Off: 5000 + int64(r.IntN(2)), Size: 1}}
			all = append(all, l.Sparse(name, 10_000, "xy", extents, opts...))
		case 4:
		default:
			all = append(all, l.File(name, []string{"", "x", "y", "xx"}[r.IntN(4)], append(opts, l.Mode(0o600+uint32(r.IntN(2))))...))
		}
	}
	return all
}

// dumped is the text of the difference of two trees by their dumps.
func dumped(t *testing.T, trees ...*fs.Tree) string {
	sides := make([]map[string][]string, 2)
	var paths []string
	for i, tree := range trees {
		var b bytes.Buffer
		if err := tree.Dump(t.Context(), &b, true); err != nil {
			t.Fatal(err)
		}
		sides[i] = make(map[string][]string)
		for line := range strings.Lines(b.String()) {
			columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if path := strings.TrimPrefix(columns[0], "/"); path != ".side" {
				sides[i][path] = columns
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	var out []string
	for _, path := range slices.Compact(paths) {
		a, b := sides[0][path], sides[1][path]
		switch {
		case a == nil:
			out = append(out, strings.TrimSpace("+ "+path))
			continue
		case b == nil:
			out = append(out, strings.TrimSpace("- "+path))
			continue
		}
		// path, type, mode, owner, size, time, device, link, target, xattrs, content
		var w What
		add := func(what What, column int) {
			if a[column] != b[column] {
				w |= what
			}
		}
		add(Type, 1)
		if a[1] != "l" && b[1] != "l" {
			add(Mode, 2)
		}
		add(Owner, 3)
		add(Time, 5)
		add(Xattrs, 9)
		if a[1] == b[1] {
			add(Device, 6)
			add(Target, 8)
			add(Content, 10)
		}
		if w != 0 {
			out = append(out, "~ "+path+" "+w.String())
		}
	}
	return strings.Join(out, "\n")
}
