package fs_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// TestOwnAttributes merges files of one name that have a small set of attributes
// each: those take no more memory than they count, beside the sets themselves.
func TestOwnAttributes(t *testing.T) {
	const n = 200_000
	all := make([]layerindex.Xattr, n)
	for i := range all {
		all[i] = layerindex.Xattr{Name: "user.a", Value: strconv.Itoa(i)}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, took := heap(), int64(0)
	tree, counted, err := fs.MergeCounted(t.Context(), fs.Layer{Name: "L", Entries: func(yield func(*layerindex.Entry) bool) {
		for i := range all {
			if !yield(&layerindex.Entry{Name: "f", Type: layerindex.TypeReg, Xattrs: all[i : i+1]}) {
				return
			}
		}
		took = heap() - before
	}})
	if err != nil {
		t.Fatal(err)
	}
	if took > counted {
		t.Errorf("%d bytes for each set while merging, of which %d are counted", took/n, counted/n)
	}
	f, _ := tree.Root().Child("f")
	if got := f.Xattrs(); !slices.Equal(got, all[n-1:]) {
		t.Errorf("the last file has %v, want %v", got, all[n-1:])
	}
	runtime.KeepAlive(all)
}

// TestLayerOnItself merges an image that has layers several times in a row, also
// one that means something else there, as if each were another layer.
func TestLayerOnItself(t *testing.T) {
	base := []member{file("t", "base"), file("u", "base"), symlink("s", "d1"), file("d1/t", "one"), file("d2/t", "two"), file("gone", "x")}
	for name, top := range map[string][]member{
		"files":                         {file("t", "top"), whiteout("gone"), file("gone", "back"), file("n/m", "")},
		"link to what comes later":      {link("l", "t"), file("t", "top")},
		"chain of links":                {link("l1", "l2"), link("l2", "u"), file("u", "top")},
		"link through a later symlink":  {link("l", "s/t"), symlink("s", "d2")},
		"link to its own layer":         {file("t", "top"), link("l", "t")},
		"link to what is then replaced": {link("k", "d1/t"), whiteout("d2"), file("d1/t", "new")},
	} {
		t.Run(name, func(t *testing.T) {
			pre := base
			if name == "chain of links" {
				pre = append(slices.Clone(base), link("l2", "t"))
			}
			for _, stack := range [][][]member{{pre, top, top}, {pre, top, top, top}, {pre, top, top, top, pre, top}} {
				checkRepeated(t, stack)
			}
		})
	}
}

func checkRepeated(t *testing.T, stack [][]member) {
	t.Helper()
	want := list(t, merge(t, stack...))
	var layers [][]byte
	for _, members := range stack {
		layers = append(layers, tarOf(members))
	}
	tree, done, err := openTars(t, t.TempDir(), layers)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if got := list(t, tree); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestTooMuchToMerge: more layers or entries than an image may have are refused
// before any is looked at.
func TestTooMuchToMerge(t *testing.T) {
	unread := fs.Layer{Name: "L", Entries: func(func(*layerindex.Entry) bool) { t.Error("entries are looked at") }}
	if _, err := fs.Merge(t.Context(), make([]fs.Layer, 4097)); !errors.Is(err, fs.ErrTooLarge) {
		t.Errorf("4,097 layers: %v", err)
	}
	for _, counts := range [][]int{{layerindex.MaxEntries, 1}, {1<<63 - 1, 1}, {1 << 62, 1 << 62, 1 << 62}, {-1}} {
		var layers []fs.Layer
		for _, n := range counts {
			l := unread
			l.Count = n
			layers = append(layers, l)
		}
		if _, err := fs.Merge(t.Context(), layers); !errors.Is(err, layerindex.ErrEntries) {
			t.Errorf("%d entries: %v", counts, err)
		}
	}
}

// detours are symlinks s0 to sN-1, each to the next by way of n components, the
// last one to d.
func detours(links, n int) []member {
	members := []member{dir("d"), file("d/f", "x")}
	for i := range links {
		next := fmt.Sprint("s", i+1)
		if i == links-1 {
			next = "d"
		}
		members = append(members, symlink(fmt.Sprint("s", i), strings.Repeat("d/../", n/2)+next))
	}
	return members
}

// TestSteps: names that take more steps to resolve than any that is no attack
// are refused, and named.
func TestSteps(t *testing.T) {
	var refused *fs.EntryError
	for name, last := range map[string]member{"hard link": link("l", "s0/f"), "parent": file("s0/l", "")} {
		_, err := fs.Merge(t.Context(), layersOf(append(detours(10, 500), last)))
		if !errors.As(err, &refused) || !errors.Is(err, fs.ErrSteps) || refused.Name != last.Name {
			t.Errorf("%s of 5,000 steps: %v", name, err)
		}
		if _, err := fs.Merge(t.Context(), layersOf(append(detours(10, 400), last))); err != nil {
			t.Errorf("%s of 4,000 steps: %v", name, err)
		}
	}
	stack := detours(10, 100)
	for i := range 20 {
		stack = append(stack, link(fmt.Sprint("l", i), "s0/f"))
	}
	if _, err := fs.MergeWithin(t.Context(), 10_000, layersOf(stack)); !errors.As(err, &refused) || !errors.Is(err, fs.ErrSteps) || refused.Name != "l10" {
		t.Errorf("20,000 steps in all, of 10,000: %v", err)
	}
	var deep, marks []member
	for i := range 20 {
		deep = append(deep, file(fmt.Sprint(strings.Repeat("d/", 100), i), ""))
		marks = append(marks, whiteout(fmt.Sprint(strings.Repeat("d/", 100), i)))
	}
	if _, err := fs.MergeWithin(t.Context(), 1000, layersOf(deep, marks)); !errors.As(err, &refused) || !errors.Is(err, fs.ErrSteps) || refused.Layer != "L2" {
		t.Errorf("whiteouts of 2,000 steps in all, of 1,000: %v", err)
	}
	tree := merge(t, append(detours(10, 500), file(strings.Repeat("d/", 2040)+"f", "deep")))
	for _, name := range []string{"s0/f", strings.Repeat("./", 4096) + "d/f"} {
		if _, err := tree.Lookup(name, true); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("Lookup of %.20q: %v", name, err)
		}
	}
	if _, err := iofs.Stat(tree.WithContext(t.Context()), "s0/f"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Stat: %v", err)
	}
	if _, err := tree.Lookup(strings.Repeat("d/", 2040)+"f", true); err != nil {
		t.Errorf("Lookup of the deepest file: %v", err)
	}
}

// TestMergeEnds ends the context in each of the phases of merging.
func TestMergeEnds(t *testing.T) {
	const n = 20_000
	for _, end := range []int{0, n / 2, n - 1} {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		layers := []fs.Layer{{Name: "L", Entries: func(yield func(*layerindex.Entry) bool) {
			for i := range n {
				if seen = i; i == end {
					cancel()
				}
				if !yield(&layerindex.Entry{Name: fmt.Sprint("f", n-i), Type: layerindex.TypeReg}) {
					return
				}
			}
		}}}
		if tree, err := fs.Merge(ctx, layers); !errors.Is(err, context.Canceled) || seen > end+1000 {
			t.Errorf("ended at entry %d: %v, %v, %d entries were looked at", end, tree, err, seen)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tree := merge(t, layer(sparse("holes", 1<<63-1, "", []layerindex.Extent{})))
	f, err := tree.WithContext(ctx).Open("holes")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Read(make([]byte, 100)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("reading zeros: %d, %v", n, err)
	}
}

// TestManyOfEach has more of everything than fits in one page or piece.
func TestManyOfEach(t *testing.T) {
	var members []member
	for i := range 9000 {
		name := fmt.Sprintf("d%d/%s%d", i%7, strings.Repeat("n", i%240), i)
		switch i % 4 {
		case 0:
			members = append(members, symlink(name, strings.Repeat("t", 1+i%4000)))
		case 1:
			members = append(members, file(name, "", xattr("user.a", fmt.Sprint(i%500)), xattr("user.b", "b")))
		case 2:
			members = append(members, sparse(name, 1000, "xy", []layerindex.Extent{{Off: 1, Size: 1}, {Off: int64(3 + i%900), Size: 1}}))
		case 3:
			members = append(members, link(name, members[i-2].Name, xattr("user.c", fmt.Sprint(i%300))))
		}
	}
	tree := merge(t, members, members[4000:])
	checkTree(t, tree)
	for i, m := range members {
		n, err := tree.Lookup(m.Name, false)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		switch i % 4 {
		case 0:
			if n.Target() != m.Linkname {
				t.Fatalf("%s: target %q", m.Name, n.Target())
			}
		case 1, 3:
			for _, x := range n.Xattrs() {
				got += x.Name + "=" + x.Value + " "
			}
			want := fmt.Sprintf("user.a=%d user.b=b ", i&^2%500)
			if i+2 < len(members) || i%4 == 3 {
				want += fmt.Sprintf("user.c=%d ", (i|2)%300)
			}
			if got != want {
				t.Fatalf("%s: %q, want %q", m.Name, got, want)
			}
		case 2:
			if got = readAll(t, n); got[1] != 'x' || got[3+i%900] != 'y' || strings.Trim(got, "\x00xy") != "" {
				t.Fatalf("%s: %q", m.Name, got)
			}
		}
	}
}
