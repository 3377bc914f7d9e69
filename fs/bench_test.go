package fs_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
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

// BenchmarkReadAt reads pieces of a file that are decoded and in memory, with
// the counting that trees of opened layers do, and without.
func BenchmarkReadAt(b *testing.B) {
	o := newOpened(b, gzipLayer(b, "a", strings.Repeat("0123456789abcdef", 64<<10/16)))
	counted, err := o.open(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, tree := range map[string]*fs.Tree{"counted": counted, "uncounted": fs.Uncounted(counted)} {
		for _, size := range []int{1, 4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				n, err := tree.Lookup("a", false)
				if err != nil {
					b.Fatal(err)
				}
				p := make([]byte, size)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := n.ReadAt(b.Context(), p, 0); err != nil && err != io.EOF {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkReadContent reads pieces of a file whose content is kept on disk.
func BenchmarkReadContent(b *testing.B) {
	content := strings.Repeat("0123456789abcdef", 1<<20/16)
	o := newOpened(b, gzipLayer(b, "a", content))
	tree, err := o.open(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	n, err := tree.Lookup("a", false)
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 128<<10)
	if _, err := n.ReadAt(b.Context(), p, 0); err != nil {
		b.Fatal(err)
	}
	for range 2 {
		n.Backing(fs.BackingUse{Exec: true})
	}
	fs.WaitContents(tree)
	for _, size := range []int{4 << 10, 128 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := n.ReadAt(b.Context(), p[:size], 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if s := tree.Stats().Contents; s.ReadBytes == 0 {
		b.Errorf("%+v", s)
	}
}
