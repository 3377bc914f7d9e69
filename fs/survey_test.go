package fs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// idName is the attribute by which the test of surveys knows inodes that are no
// directories: a hard link gives an inode other attributes, but keeps this one.
const idName = "trusted.id"

// marked returns a stack in which each entry that makes an inode but a directory has a
// number of its own.
func marked(stack [][]member) [][]member {
	id := 0
	var all [][]member
	for _, l := range stack {
		var members []member
		for _, m := range l {
			if m.Type != layerindex.TypeDir && m.Type != layerindex.TypeLink {
				id++
				m.Xattrs = append(slices.Clone(m.Xattrs), layerindex.Xattr{Name: idName, Value: fmt.Sprint(id)})
			}
			members = append(members, m)
		}
		all = append(all, members)
	}
	return all
}

// A seenFile is what a tree has at a path.
type seenFile struct {
	id      string // of the inode, "" of a directory
	attr    fs.Attr
	target  string
	xattrs  string
	content bool // a regular file
}

func filesOf(tree *fs.Tree) map[string]seenFile {
	files := make(map[string]seenFile)
	for path, n := range tree.All() {
		f := seenFile{attr: n.Attr(), target: n.Target(), xattrs: fmt.Sprint(n.Xattrs())}
		f.attr.Nlink = 0
		f.content = f.attr.Mode&syscall.S_IFMT == syscall.S_IFREG
		for _, x := range n.Xattrs() {
			if x.Name == idName {
				f.id = x.Value
			}
		}
		files[path] = f
	}
	return files
}

func dirFile(f seenFile) bool { return f.attr.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// change says what has become of a path from one tree to the next.
func change(was, is seenFile, had, has bool) fs.Change {
	switch {
	case !had && has:
		return fs.Added
	case had && !has:
		return fs.Hidden
	case !had:
		return 0
	case was.id != is.id || dirFile(was) != dirFile(is):
		return fs.Replaced
	case was != is:
		return fs.Changed
	}
	return 0
}

// naiveSurvey finds what layers do by comparing the trees of the first ones.
func naiveSurvey(trees []map[string]seenFile) (layers []fs.LayerChanges, histories map[string][]fs.Version) {
	layers, histories = make([]fs.LayerChanges, len(trees)), make(map[string][]fs.Version)
	last := idsOf(trees[len(trees)-1])
	before := map[string]seenFile{}
	for i, now := range trees {
		l := &layers[i]
		replacing, hidden := map[string]bool{}, map[string]bool{}
		for path := range union(before, now) {
			was, had := before[path]
			is, has := now[path]
			c := change(was, is, had, has)
			switch c {
			case 0:
				continue
			case fs.Added:
				l.Added.Names++
			case fs.Replaced:
				l.Replaced.Names++
				replacing[is.id] = true
			case fs.Changed:
				l.Changed++
			case fs.Hidden:
				l.Hidden.Names++
				hidden[was.id] = true
			}
			v := fs.Version{Layer: i, Change: c}
			if has {
				v.Attr, v.Target = is.attr, is.target
			}
			histories[path] = append(histories[path], v)
		}
		was, is := idsOf(before), idsOf(now)
		for id, size := range is {
			if _, old := was[id]; old {
				continue
			}
			if replacing[id] {
				l.Replaced.Bytes += size
			} else {
				l.Added.Bytes += size
			}
			if _, still := last[id]; !still {
				l.Useless += size
			}
		}
		for id, size := range was {
			if _, still := is[id]; !still && hidden[id] {
				l.Hidden.Bytes += size
			}
		}
		before = now
	}
	return layers, histories
}

// idsOf returns the sizes of the regular files of a tree, each inode once.
func idsOf(files map[string]seenFile) map[string]int64 {
	sizes := make(map[string]int64)
	for _, f := range files {
		if f.content {
			sizes[f.id] = f.attr.Size
		}
	}
	return sizes
}

func union(a, b map[string]seenFile) map[string]bool {
	all := make(map[string]bool)
	for p := range a {
		all[p] = true
	}
	for p := range b {
		all[p] = true
	}
	return all
}

// checkSurvey compares the survey of a stack with the trees of its first layers. The
// error of a stack that is refused is an *fs.EntryError.
func checkSurvey(t *testing.T, stack [][]member) error {
	t.Helper()
	layers := layersOf(stack...)
	tree, survey, budget, err := fs.MergeSurvey(t.Context(), layers)
	if err != nil {
		return err
	}
	whole, err := fs.Merge(t.Context(), layers)
	if err != nil {
		return fmt.Errorf("without a survey: %v", err)
	}
	if got, want := dump(t, tree), dump(t, whole); got != want {
		return fmt.Errorf("with a survey the tree is\n%swant\n%s", got, want)
	}
	if budget.Used() < 0 {
		return fmt.Errorf("the budget counts %d bytes", budget.Used())
	}
	var trees []map[string]seenFile
	for i := range stack {
		prefix, err := fs.Merge(t.Context(), layersOf(stack[:i+1]...))
		if err != nil {
			return fmt.Errorf("the first %d layers: %v", i+1, err)
		}
		trees = append(trees, filesOf(prefix))
	}
	want, histories := naiveSurvey(trees)
	for i, l := range survey.Layers() {
		if l != want[i] {
			return fmt.Errorf("layer L%d:\n got %+v\nwant %+v", i+1, l, want[i])
		}
	}
	for path, want := range histories {
		if got := survey.HistoryAt(path); !slices.Equal(got, want) {
			return fmt.Errorf("%q:\n got %+v\nwant %+v", path, got, want)
		}
	}
	for path, n := range tree.All() {
		want := histories[path]
		if got, err := survey.History(path); err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("%q in the tree: error %v\n got %+v\nwant %+v", path, err, got, want)
		}
		if isDir(n) && survey.Layer(n) != want[len(want)-1].Layer || n.Layer() >= 0 && survey.Layer(n) != n.Layer() {
			return fmt.Errorf("%q is of layer %d, and its history is %+v", path, survey.Layer(n), want)
		}
	}
	return checkPaths(survey, trees, histories)
}

// TestSurvey compares surveys of random stacks with the trees of the first layers: of
// 500, or as many as IMGFS_STACKS says.
func TestSurvey(t *testing.T) {
	testenv.Slow(t)
	for seed := range stackCount(t, 500) {
		g := generator{choose: rand.New(rand.NewPCG(seed, 1)).IntN, devices: true, trusted: true, xattrs: true, owners: true}
		stack := marked(g.stack())
		for {
			err := checkSurvey(t, stack)
			if err == nil {
				break
			}
			var refused *fs.EntryError
			if !errors.As(err, &refused) {
				stack = shrink(stack, func(less [][]member) bool {
					err := checkSurvey(t, less)
					return err != nil && !errors.As(err, new(*fs.EntryError))
				})
				t.Fatalf("seed %d: %v\nwith\n%s", seed, checkSurvey(t, stack), stackString(stack))
			}
			for i := range stack {
				if refused.Layer == fmt.Sprintf("L%d", i+1) {
					stack[i] = slices.DeleteFunc(slices.Clone(stack[i]), func(m member) bool { return m.Name == refused.Name })
				}
			}
		}
	}
}

// TestSurveyCases has what random stacks seldom have, or what is easier to read here.
func TestSurveyCases(t *testing.T) {
	for name, stack := range map[string][][]member{
		"empty layers":            {layer(), layer(file("a", "x")), layer()},
		"same directory":          {layer(dir("a/"), file("a/b", "x")), layer(dir("a/"), file("a/c", "y"))},
		"opaque and again":        {layer(dir("a/"), file("a/b", "x"), file("a/c", "y")), layer(opaque("a"), file("a/b", "zz"))},
		"hidden below":            {layer(file("a/b/c/d", "1234"), link("x", "a/b/c/d"), file("a/e", "5")), layer(whiteout("a"))},
		"file, directory, file":   {layer(file("a", "x")), layer(dir("a/"), file("a/b", "y")), layer(file("a", "z"))},
		"link to a lower file":    {layer(file("a", "x"), link("b", "a")), layer(link("c", "a", mode(0o600)))},
		"link over its own file":  {layer(file("a", "x"), link("b", "a")), layer(file("a", "yy"), link("b", "a"))},
		"whiteout and again":      {layer(file("a", "x")), layer(whiteout("a")), layer(file("a", "x"))},
		"within one layer":        {layer(file("a", "x")), layer(file("a", "yy"), file("a", "zzz"), dir("b/"), file("b/c", "q"), file("b", "r"))},
		"directory whited out":    {layer(file("a/b", "x")), layer(whiteout("a"), file("a/c", "y"))},
		"the root changes":        {layer(file("a", "x")), layer(dir("./", mode(0o700)))},
		"symlink over a dir":      {layer(file("a/b", "x"), file("c/b", "y")), layer(symlink("a", "c"))},
		"sparse":                  {layer(sparse("s", 1<<40, "ab", []layerindex.Extent{{Off: 5, Size: 2}})), layer(whiteout("s"))},
		"opaque again and again":  {layer(file("a/b", "x"), file("a/c", "x")), layer(opaque("a")), layer(opaque("a")), layer(opaque("a"), file("a/c", "y"))},
		"link keeps it":           {layer(file("a", "xyz"), link("b", "a")), layer(whiteout("a")), layer(whiteout("b"))},
		"reserved and linked":     {layer(file(".wh..wh.plnk/1", "xyz"), link("a", ".wh..wh.plnk/1")), layer(whiteout("a"))},
		"written through a link":  {layer(symlink("l", "d"), file("l/x", "1")), layer(file("l/x", "22"))},
		"directory above changes": {layer(dir("a/"), file("a/b", "x")), layer(dir("a/", mode(0o700))), layer(whiteout("a/b")), layer(dir("a/", mode(0o755)))},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkSurvey(t, marked(stack)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSurveyHistory looks for paths as people write them.
func TestSurveyHistory(t *testing.T) {
	_, survey, _, err := fs.MergeSurvey(t.Context(), layersOf(
		layer(file("usr/lib/a", "1"), symlink("lib", "usr/lib"), file("old/b", "2"), symlink("l", "nowhere"), file("d/x/y", "3")),
		layer(file("usr/lib/a", "22"), whiteout("old"), symlink("d", "usr"), whiteout("l"))))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/usr/lib/a": "0 added 1, 1 replaced 2", "lib/a": "0 added 1, 1 replaced 2", "/lib/../lib//a": "0 added 1, 1 replaced 2",
		"/old/b": "0 added 1, 1 hidden 0", "old/./b": "0 added 1, 1 hidden 0", "old/": "0 added 4096, 1 hidden 0", "/old/../usr/lib/a": "0 added 1, 1 replaced 2",
		"lib": "0 added 7", "lib/": "0 added 4096", "/": "0 added 4096", "": "0 added 4096", ".": "0 added 4096", "..": "0 added 4096",
		"d": "0 added 4096, 1 replaced 3", "d/x/y": "0 added 1, 1 hidden 0", "d/lib/a": "0 added 1, 1 replaced 2", "l": "0 added 7, 1 hidden 0",
		"/no": "ENOENT", "old/c": "ENOENT", "old/b/c": "ENOENT", strings.Repeat("a/", 5000): "ENOENT",
	} {
		var words []string
		list, err := survey.History(path)
		for _, v := range list {
			words = append(words, fmt.Sprint(v.Layer, " ", v.Change, " ", v.Attr.Size))
		}
		got := strings.Join(words, ", ")
		if errors.Is(err, syscall.ENOENT) {
			got = "ENOENT"
		}
		if got != want {
			t.Errorf("%.20q: got %q, want %q", path, got, want)
		}
	}
}

// TestSurveyBudget merges within less than the survey takes.
func TestSurveyBudget(t *testing.T) {
	var members []member
	for i := range 1000 {
		members = append(members, file(fmt.Sprint("d/", i), "x"))
	}
	stack := [][]member{members, layer(opaque("d")), members, layer(whiteout("d"))}
	_, _, budget, err := fs.MergeSurvey(t.Context(), layersOf(stack...))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		limit  int64
		survey bool
		fails  bool
	}{{budget.Used(), true, false}, {budget.Used() - 1, true, true}, {budget.Used() / 2, false, false}} {
		limited := layerindex.NewBudget(c.limit, nil)
		b, err := fs.NewBuilder(t.Context(), &fs.BuilderOptions{Budget: limited, Survey: c.survey})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layersOf(stack...) {
			if err == nil {
				err = b.Apply(l)
			}
		}
		if err == nil {
			_, err = b.Tree()
		}
		if c.fails != (err != nil) || c.fails && !errors.Is(err, layerindex.ErrMetadata) {
			t.Errorf("%d bytes, survey %v: got error %v", c.limit, c.survey, err)
		}
	}
}

// TestSurveyHides has a directory whose many names are taken away again and again, each
// time with one new one: only what is there may cost time.
func TestSurveyHides(t *testing.T) {
	testenv.Slow(t)
	var many []member
	for i := range 200000 {
		many = append(many, file(fmt.Sprint("d/", i), ""))
	}
	stack := [][]member{many}
	for range 3000 {
		stack = append(stack, layer(opaque("d"), file("d/x", "")))
	}
	_, survey, _, err := fs.MergeSurvey(t.Context(), layersOf(stack...))
	if err != nil {
		t.Fatal(err)
	}
	all := survey.Layers()
	if all[1].Hidden.Names != 200000 || all[2].Hidden.Names != 0 || all[2].Replaced.Names != 1 {
		t.Errorf("got %+v", all[1:3])
	}
}
