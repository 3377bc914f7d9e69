package image

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache"
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
	// large, are counted each for itself. What is fetched ahead counts for who reads it first.
	Files []FileCost `json:"files"`
	// Contents are those of files that are kept on disk whole.
	Contents ContentStats `json:"contents"`
}

// ContentStats are the counters of the contents that a tree keeps on disk.
type ContentStats struct {
	Open      int   `json:"open"`      // now
	Kept      int64 `json:"kept"`      // files that were written
	KeptBytes int64 `json:"keptBytes"` // their bytes
	ReadBytes int64 `json:"readBytes"` // bytes that fs.Node.ReadAt read from contents
	Waiting   int   `json:"waiting"`   // to be looked for, checked or written
}

// LayerStats are the counters of one layer.
type LayerStats struct {
	Digest   digest.Digest      `json:"digest"`
	Size     int64              `json:"size"`  // of the blob
	Reads    int64              `json:"reads"` // as in Stats, of files of this layer
	Asked    int64              `json:"asked"`
	Waits    int64              `json:"waits"`
	WaitP50  time.Duration      `json:"waitP50"`
	WaitP99  time.Duration      `json:"waitP99"`
	Verified cache.Verification `json:"verified"`
	Blob     cache.BlobStats    `json:"blob"`
}

// A FileCost is what reading one file took; of a small one, since something was
// first fetched for it.
type FileCost struct {
	Path    string `json:"path"` // one of its names
	Asked   int64  `json:"asked"`
	Fetched int64  `json:"fetched"`
}

// maxCostly is how many files Stats names.
const maxCostly = 20

// Reads returns Stats().Reads alone, which takes no time.
func (i *Image) Reads() int64 { return i.counts.reads() }

// Stats returns the counters as they are now. It walks through the names of the
// tree and is not for every moment.
func (i *Image) Stats() Stats {
	c := i.counts
	s := Stats{Errors: c.errors.Load(), Layers: []LayerStats{}, Files: i.costly(maxCostly)}
	var all waitCounts
	waits := make([]waitCounts, 0, len(i.layers.all))
	rows := map[*Layer]int{}
	for at, l := range i.layers.all {
		asked, reads := c.layers[at].asked.Load(), c.layers[at].reads.Load()
		s.Contents.ReadBytes += c.layers[at].kept.Load()
		s.Reads += reads
		s.Asked += asked
		k, again := rows[l]
		if !again {
			k = len(s.Layers)
			rows[l] = k
			s.Layers = append(s.Layers, LayerStats{Digest: l.Digest(), Size: l.Size(), Verified: l.verified(), Blob: l.state.Load().blob.Stats()})
			waits = append(waits, waitCounts{})
		}
		s.Layers[k].Asked += asked
		s.Layers[k].Reads += reads
		c.layers[at].waits.addTo(&waits[k])
		c.layers[at].waits.addTo(&all)
	}
	s.Waits, s.WaitP50, s.WaitP99 = all.summary()
	for k := range s.Layers {
		l := &s.Layers[k]
		l.Waits, l.WaitP50, l.WaitP99 = waits[k].summary()
	}
	if i.contents != nil {
		i.contents.count(&s.Contents)
	}
	return s
}

// costly returns the n files for which most was fetched.
func (i *Image) costly(n int) []FileCost {
	f := &i.counts.files
	type row struct {
		id             uint32
		asked, fetched int64
	}
	var rows []row
	for id, c := range f.all() {
		if fetched := c.fetched.Load(); fetched > 0 {
			rows = append(rows, row{id, c.asked.Load(), fetched})
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.fetched, a.fetched), cmp.Compare(a.id, b.id))
	})
	rows = rows[:min(n, len(rows))]
	names := make(map[uint64]string, len(rows))
	for _, r := range rows {
		names[uint64(r.id)+1] = ""
	}
	i.tree.FindPaths(i.digests.ctx, names) // it ends when the tree is closed
	costs := make([]FileCost, len(rows))
	for k, r := range rows {
		costs[k] = FileCost{names[uint64(r.id)+1], r.asked, r.fetched}
	}
	return costs
}
