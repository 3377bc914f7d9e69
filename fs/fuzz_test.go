package fs_test

import (
	"math/rand/v2"
	"testing"

	"github.com/imgfs/imgfs/fs"
)

// FuzzMerge merges stacks that the generator makes of the input. Whatever is
// not refused must be a sound tree, the same each time, and stay what it is
// when its export is merged.
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
		tree, err := fs.Merge(layersOf(stack...))
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
	})
}
