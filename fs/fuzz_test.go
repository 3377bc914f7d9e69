package fs_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/opencontainers/go-digest"
)

// FuzzMerge merges stacks that the generator makes of the input. Whatever is
// not refused must be a sound tree, the same each time, and stay what it is
// when its export is merged, as entries and as one tar.
func FuzzMerge(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(rng.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g := generator{devices: true, trusted: true, xattrs: true, owners: true}
		g.choose = func(n int) int {
			if len(data) == 0 {
				return 0
			}
			c := int(data[0]) % n
			data = data[1:]
			return c
		}
		stack := g.stack()
		tree, err := fs.Merge(t.Context(), layersOf(stack...))
		if err != nil {
			return
		}
		checkTree(t, tree)
		if got, want := dump(t, merge(t, stack...)), dump(t, tree); got != want {
			t.Errorf("merged again:\n%swant\n%s", got, want)
		}
		if err := checkExport(t, tree); err != nil {
			t.Errorf("%v\nwith\n%s", err, stackString(stack))
		}
		checkOneTar(t, tree, stack)
	})
}

// TestOneTar: the tree of every case, written as the tar of one layer, is the
// same tree when that layer is read and merged.
func TestOneTar(t *testing.T) {
	checked := 0
	for _, c := range allCases() {
		if tree, err := fs.Merge(t.Context(), layersOf(c.stack...)); err == nil {
			checkOneTar(t, tree, c.stack)
			checked++
		}
	}
	if checked < 90 {
		t.Errorf("%d trees, want nearly all cases", checked)
	}
}

// checkOneTar writes a tree as one tar, if that is possible, and reads and
// merges it.
func checkOneTar(t *testing.T, tree *fs.Tree, stack [][]member) {
	t.Helper()
	members, ok := exportOne(t, tree)
	if !ok {
		return
	}
	again, err := fs.Merge(t.Context(), []fs.Layer{layerOfTar(t, tarOf(members))})
	if err != nil {
		t.Errorf("merging the tar of the tree: %v\nwith\n%s", err, stackString(stack))
		return
	}
	if got, want := dump(t, again), dump(t, tree); got != want {
		t.Errorf("the tar of the tree merges to\n%swant\n%swith\n%s", got, want, stackString(stack))
	}
}

// exportOne writes a tree as one layer. It reports false if no layer makes such
// a tree: nothing but a whiteout of what was in it leaves a directory called
// .wh.x empty.
func exportOne(t testing.TB, tree *fs.Tree) ([]member, bool) {
	t.Helper()
	members, ok := []member{exported(t, ".", tree.Root())}, true
	first := make(map[uint64]string)
	pathsOf(tree.Root(), "", func(path string, n fs.Node) {
		if strings.HasPrefix(path[strings.LastIndexByte(path, '/')+1:], ".wh.") {
			ok = ok && n.NumChildren() > 0
			return
		}
		m := exported(t, path, n)
		if target, seen := first[n.Ino()]; seen {
			m.Type, m.Linkname, m.Size, m.Data = layerindex.TypeLink, target, 0, ""
		} else if !isDir(n) {
			first[n.Ino()] = path
		}
		members = append(members, m)
	})
	return members, ok
}

// layerOfTar is a layer as its tar says.
func layerOfTar(t testing.TB, tar []byte) fs.Layer {
	t.Helper()
	d := digest.FromBytes(tar)
	x, err := build.Index(t.Context(), layerindex.Layer{Digest: d, Size: int64(len(tar)), DiffID: d}, bytes.NewReader(tar), nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	return fs.Layer{Name: "tar", Content: fs.StreamContent(memContent(tar)), Entries: entries}
}
