package image

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image/internal/counters"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// Stats are the counters of an image, since it was opened.
type Stats struct {
	Reads  int64 `json:"reads"`  // calls of fs.Node.ReadAt for bytes that a file has
	Asked  int64 `json:"asked"`  // bytes that they asked for
	Errors int64 `json:"errors"` // reads that failed, but for ended contexts
	// Waits counts the reads that took longer than WaitFloor, and WaitP50 and
	// WaitP99 are how long half, and all but a hundredth, of them took at most;
	// both are rounded up by at most an eighth. In JSON they are nanoseconds.
	Waits   int64         `json:"waits"`
	WaitP50 time.Duration `json:"waitP50"`
	WaitP99 time.Duration `json:"waitP99"`
	// Layers are in the image's order, the base first; one that the image has
	// more than once is there once.
	Layers []LayerStats `json:"layers"`
	// Files are those that had the most bytes fetched for them, at most 20.
	// Only the first 65,536 files for which something is fetched, or that are
	// large, are counted each for itself. What is
	// fetched ahead counts for the file whose reader it is fetched ahead of.
	Files []FileCost `json:"files"`
	// Contents are those of kept files.
	Contents KeptStats `json:"contents"`
}

// LayerStats are the counters of one layer.
type LayerStats struct {
	Digest   digest.Digest     `json:"digest"`
	Size     int64             `json:"size"`  // of the blob
	Reads    int64             `json:"reads"` // as in Stats, of files of this layer
	Asked    int64             `json:"asked"`
	Waits    int64             `json:"waits"`
	WaitP50  time.Duration     `json:"waitP50"`
	WaitP99  time.Duration     `json:"waitP99"`
	Verified meta.Verification `json:"verified"`
	Index    IndexUse          `json:"index"`
	Indexed  int64             `json:"indexed"` // see Layer.Indexed
	Blob     blobs.Stats       `json:"blob"`
}

// A FileCost is what reading one file took; of a small one, since something was
// first fetched for it.
type FileCost struct {
	Path    string `json:"path"` // one of its names
	Asked   int64  `json:"asked"`
	Fetched int64  `json:"fetched"`
}

// WaitFloor is how long a read takes at least that Stats counts as one that
// waited.
const WaitFloor = counters.WaitFloor

// maxCostly is how many files Stats names.
const maxCostly = 20

// Reads returns Stats().Reads alone, which takes no time.
func (i *Image) Reads() int64 { return i.counts.Reads() }

// Stats returns the counters as they are now. It walks through the names of the
// tree and is not for every moment.
func (i *Image) Stats() Stats {
	s := Stats{Errors: i.counts.Errors(), Layers: []LayerStats{}, Files: i.costly(maxCostly)}
	var all counters.Waits
	var waits []counters.Waits
	rows := map[*Layer]int{}
	for at, l := range i.layers.all {
		k, again := rows[l]
		if !again {
			k = len(s.Layers)
			rows[l] = k
			waits = append(waits, counters.Waits{})
			s.Layers = append(s.Layers, LayerStats{Digest: l.Digest(), Size: l.Size(), Verified: l.verified(), Index: l.Use(), Indexed: l.Indexed(), Blob: l.state.Load().blob.Stats()})
		}
		reads, asked := i.counts.Layer(at, &waits[k], &all)
		s.Reads += reads
		s.Asked += asked
		s.Layers[k].Reads += reads
		s.Layers[k].Asked += asked
	}
	s.Waits, s.WaitP50, s.WaitP99 = all.Summary()
	for k := range s.Layers {
		l := &s.Layers[k]
		l.Waits, l.WaitP50, l.WaitP99 = waits[k].Summary()
	}
	if i.kept != nil {
		s.Contents = i.kept.Stats()
	}
	return s
}

// costly returns the n files for which most was fetched.
func (i *Image) costly(n int) []FileCost {
	rows := i.counts.Costly(n)
	names := make(map[uint64]string, len(rows))
	for _, r := range rows {
		names[r.Ino] = ""
	}
	i.tree.FindPaths(i.digests.ctx, names) // it ends when the image is closed
	costs := make([]FileCost, len(rows))
	for k, r := range rows {
		costs[k] = FileCost{names[r.Ino], r.Asked, r.Fetched}
	}
	return costs
}
