package fs_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/imgfs/imgfs/fs"
)

// syntheticImage is ten layers of the shape of an application image: packages
// of some files and directories, nested, changed and removed by later layers.
func syntheticImage() (layers []fs.Layer, entries int) {
	var stack [][]member
	for l := range 10 {
		var members []member
		for p := range 455 {
			pkg := fmt.Sprintf("usr/lib/node_modules/group%02d/package-%d-%03d", p%20, l, p)
			if l > 0 && p == 0 {
				for old := range 60 {
					members = append(members, whiteout(fmt.Sprintf("usr/lib/node_modules/group%02d/package-%d-%03d/dist/esm/module-03.js", old%20, l-1, old)))
				}
			}
			members = append(members, dir(pkg+"/"), file(pkg+"/package.json", ""), symlink(pkg+"/index.js", "dist/index.js"))
			for d := range 3 {
				sub := fmt.Sprintf("%s/dist/%s", pkg, []string{"cjs", "esm", "types"}[d])
				members = append(members, dir(sub+"/"))
				for f := range 6 {
					members = append(members, file(fmt.Sprintf("%s/module-%02d.js", sub, f), ""))
				}
			}
			members = append(members, link(pkg+"/main.js", pkg+"/dist/cjs/module-00.js"))
		}
		stack = append(stack, members)
		entries += len(members)
	}
	return layersOf(stack...), entries
}

func BenchmarkMerge(b *testing.B) {
	layers, entries := syntheticImage()
	size := bytesPerInode(b, layers)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fs.Merge(b.Context(), layers); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(entries), "entries")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(entries), "ns/entry")
	b.ReportMetric(size, "bytes/inode")
}

// bytesPerInode measures what stays in memory of a tree.
func bytesPerInode(b *testing.B, layers []fs.Layer) float64 {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before, inodes := heap(), 0
	var trees []*fs.Tree
	for range 4 {
		tree, err := fs.Merge(b.Context(), layers)
		if err != nil {
			b.Fatal(err)
		}
		trees, inodes = append(trees, tree), inodes+tree.Len()
	}
	after := heap()
	runtime.KeepAlive(trees)
	return (after - before) / float64(inodes)
}

func BenchmarkLookup(b *testing.B) {
	layers, _ := syntheticImage()
	tree, err := fs.Merge(b.Context(), layers)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tree.Lookup("usr/lib/node_modules/group07/package-3-047/dist/esm/module-05.js", true); err != nil {
			b.Fatal(err)
		}
	}
}
