package fs_test

import (
	"fmt"
	"slices"

	"github.com/imgfs/imgfs/fs"
)

// checkPaths compares the paths of a survey with the trees of the first layers and what
// is known to have happened to them.
func checkPaths(survey *fs.Survey, trees []map[string]seenFile, histories map[string][]fs.Version) error {
	seen := map[string]bool{}
	for i := range survey.NumPaths() {
		p := survey.Path(i)
		name := p.String()
		if seen[name] || i > 0 && (p.Above().Index() >= i || p.Name() == "") {
			return fmt.Errorf("path %d is %q", i, name)
		}
		seen[name] = true
		want := histories[name]
		if got := p.History(); !slices.Equal(got, want) {
			return fmt.Errorf("%q:\n got %+v\nwant %+v", name, got, want)
		}
		for at, tree := range trees {
			change := fs.Change(0)
			for _, v := range want {
				if v.Layer == at {
					change = v.Change
				}
			}
			if got := p.Change(at); got != change {
				return fmt.Errorf("%q: layer %d has %v it, want %v", name, at, got, change)
			}
			if got := p.Touched(at); got != (len(want) > 0 && want[len(want)-1].Layer > at) {
				return fmt.Errorf("%q: touched above layer %d: %v, with %+v", name, at, got, want)
			}
			n, ok := p.After(at)
			f, there := tree[name]
			if ok != there || ok && (n.Attr().Size != f.attr.Size || n.Target() != f.target || isDir(n) != dirFile(f)) {
				return fmt.Errorf("%q after layer %d: %v, want %+v %v", name, at, ok, f, there)
			}
			if !ok || dirFile(f) {
				continue
			}
			if id := idOf(n); id != f.id {
				return fmt.Errorf("%q after layer %d is %s, want %s", name, at, id, f.id)
			}
		}
	}
	for name := range histories {
		if !seen[name] {
			return fmt.Errorf("%q is no path", name)
		}
	}
	useless, told := make([]int64, len(trees)), map[string]bool{}
	for w := range survey.Wasted() {
		n, ok := w.Path.After(w.By - 1)
		switch {
		case !ok || told[idOf(n)] || n.Attr().Size != w.Bytes:
			return fmt.Errorf("wasted twice, or wrong: %v %+v", w.Path, w)
		case w.Path.Change(w.By) != w.Change:
			return fmt.Errorf("%v: %v, and layer %d has %v it", w.Path, w.Change, w.By, w.Path.Change(w.By))
		}
		told[idOf(n)] = true
		useless[w.Layer] += w.Bytes
	}
	for i, l := range survey.Layers() {
		if useless[i] != l.Useless {
			return fmt.Errorf("layer %d wastes %d bytes, want %d", i, useless[i], l.Useless)
		}
	}
	return nil
}

// idOf returns the number that marked has given an inode.
func idOf(n fs.Node) string {
	for _, x := range n.Xattrs() {
		if x.Name == idName {
			return x.Value
		}
	}
	return ""
}
