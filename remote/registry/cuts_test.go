package registry_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
)

// oddCuts are the cuts of a content as indexes of others have them: of any length, some of
// which share a byte.
type oddCuts struct {
	content []byte
	bounds  [][2]int64
	sum     [sha256.Size]byte
}

var _ blobs.Cuts = (*oddCuts)(nil)

func oddCutsOf(content []byte) *oddCuts {
	c := &oddCuts{content: content, sum: sha256.Sum256(content)}
	r := rand.New(rand.NewPCG(uint64(len(content)), 4))
	size := int64(len(content))
	for at := int64(0); at < size; {
		end := min(at+2+r.Int64N([]int64{20, 3 * faultChunk}[r.IntN(2)]), size)
		c.bounds = append(c.bounds, [2]int64{at, end})
		if at = end; r.IntN(2) == 0 && end < size {
			at--
		}
	}
	return c
}

func (c *oddCuts) Len() int64 { return int64(len(c.bounds)) }

func (c *oddCuts) Bounds(k int64) (off, end int64) { return c.bounds[k][0], c.bounds[k][1] }

func (c *oddCuts) Sum() [sha256.Size]byte { return c.sum }

func (c *oddCuts) Match(k int64, data []byte) bool {
	off, end := c.Bounds(k)
	return sha256.Sum256(data) == sha256.Sum256(c.content[off:end])
}

// cutsOf are the cuts that tests read a content by.
func cutsOf(content []byte, odd bool) blobs.Cuts {
	if odd {
		return oddCutsOf(content)
	}
	return chunksOf(content)
}

// cachedBy is cachedOf by given cuts.
func cachedBy(t *testing.T, disk *cache.Cache, b remote.Blob, cuts blobs.Cuts) *blobs.Blob {
	t.Helper()
	cached, err := disk.Blobs.Blob(b, cuts)
	if err != nil {
		t.Fatal(err)
	}
	return cached
}
