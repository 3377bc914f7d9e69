package image

import (
	"math/rand/v2"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// TestExtentSet compares what is added with a set of bytes.
func TestExtentSet(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 16))
		var s extentSet
		var has [64]bool
		for range 20 {
			x := layerindex.Extent{Off: int64(rng.IntN(60))}
			x.Size = 1 + int64(rng.IntN(64-int(x.Off)))
			var fresh [64]bool
			for _, e := range s.add(x) {
				for k := e.Off; k < e.Off+e.Size; k++ {
					if fresh[k] || has[k] || k < x.Off || k >= x.Off+x.Size {
						t.Fatalf("seed %d: byte %d of %v is not new", seed, k, x)
					}
					fresh[k] = true
				}
			}
			for k := x.Off; k < x.Off+x.Size; k++ {
				if !has[k] && !fresh[k] {
					t.Fatalf("seed %d: byte %d of %v is left out", seed, k, x)
				}
				has[k] = true
			}
			for i := 1; i < len(s); i++ {
				if s[i-1].Off+s[i-1].Size >= s[i].Off {
					t.Fatalf("seed %d: %v touch", seed, s)
				}
			}
		}
	}
}
