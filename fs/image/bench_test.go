package image_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
)

// BenchmarkReadAt reads pieces of a file that are decoded and in memory, with
// the counting that images do, and without.
func BenchmarkReadAt(b *testing.B) {
	o := newOpened(b, gzipLayer(b, "a", strings.Repeat("0123456789abcdef", 64<<10/16)))
	counted, err := o.open(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	noted, err := o.open(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer noted.Forecast(nil).Stop()
	for name, tree := range map[string]*fs.Tree{"counted": counted.Tree(), "noted for a profile": noted.Tree()} {
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
	n, err := tree.Tree().Lookup("a", false)
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 128<<10)
	if _, err := n.ReadAt(b.Context(), p, 0); err != nil {
		b.Fatal(err)
	}
	for range 2 {
		tree.KeptFile(n, true)
	}
	image.KeptFiles(tree).Wait()
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
