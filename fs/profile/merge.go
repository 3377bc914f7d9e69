package profile

import (
	"cmp"
	"slices"
	"time"
)

const (
	// alike is what two starts have in common, of all that either reads, to be taken for the
	// same.
	alike = 0.5
	// memory is of how many runs a share is the mean at most: of more it is as if the older
	// ones counted less and less.
	memory = 4
	// forget is the share below which a read is forgotten.
	forget  = 10
	maxRuns = 1 << 30
	// maxAfter is how long after the beginning of a start anything can be read.
	maxAfter = time.Hour
)

// Pause is how long nothing new must be read for a start to be over.
const Pause = 5 * time.Second

// A block is a Grain of a file.
type block struct {
	path string
	at   int64 // its offset by Grain
}

// A weight is what is known of a block.
type weight struct {
	after time.Duration
	share float64
}

// Add adds what was read after one mount, in the order of After, which counts from the
// mount: Share says nothing. What is read after a Pause is another start. One that reads
// much the same as one before makes that surer; those used longest ago make room. None was
// used later than when, whatever a clock has said.
func (p *Profile) Add(reads []Read, when time.Time) {
	for i := range p.Starts {
		if p.Starts[i].Last.After(when) {
			p.Starts[i].Last = when
		}
	}
	added := 0
	for len(reads) > 0 {
		n := 1
		for n < len(reads) && reads[n].After-reads[n-1].After < Pause {
			n++
		}
		if s, ok := p.addStart(reads[:n], when); ok {
			// Before those that have the same time.
			p.Starts = slices.Insert(p.Starts, min(added, len(p.Starts)), s)
			added++
		}
		reads = reads[n:]
	}
	slices.SortStableFunc(p.Starts, func(a, b Start) int { return b.Last.Compare(a.Last) })
	p.trim()
}

// addStart returns the start that some reads are, if they are one. If it was known it is taken
// out.
func (p *Profile) addStart(reads []Read, when time.Time) (s Start, ok bool) {
	fresh := map[block]weight{}
	for _, r := range reads {
		if !isPath(r.Path) || !isRead(r.Off, r.Size) {
			continue
		}
		for b := range blocksOf(r) {
			if _, again := fresh[b]; !again {
				fresh[b] = weight{after: min(r.After-reads[0].After, maxAfter), share: 100}
			}
		}
	}
	if n := int64(len(fresh)) * Grain; n < MinStartBytes || n > MaxStartBytes {
		return s, false
	}
	best, most := -1, alike
	for i := range p.Starts {
		if c := common(p.Starts[i].blocks(), fresh); c >= most {
			best, most = i, c
		}
	}
	if best < 0 {
		return Start{Last: when, Runs: 1, Reads: readsOf(fresh)}, true
	}
	s = p.Starts[best]
	p.Starts = slices.Delete(p.Starts, best, best+1)
	s.Runs = min(s.Runs+1, maxRuns)
	s.Last = when
	s.Reads = bounded(readsOf(mix(s.blocks(), fresh, s.Runs)))
	return s, true
}

// bounded returns the first of some reads that ask for no more than a start may.
func bounded(reads []Read) []Read {
	var n int64
	for i, r := range reads {
		if n += r.Size; n > MaxStartBytes {
			return reads[:i]
		}
	}
	return reads
}

// mix returns what is known after one more run, which is the runs-th.
func mix(old, fresh map[block]weight, runs int) map[block]weight {
	part := 1 / float64(min(runs, memory))
	all := make(map[block]weight, len(old))
	for b, w := range old {
		w.share *= 1 - part
		all[b] = w
	}
	for b, w := range fresh {
		w.share = all[b].share + 100*part
		all[b] = w
	}
	for b, w := range all {
		if w.share < forget {
			delete(all, b)
		}
	}
	return all
}

// common returns how much two starts have in common: 1 is all.
func common(a, b map[block]weight) float64 {
	both := 0
	for k := range a {
		if _, ok := b[k]; ok {
			both++
		}
	}
	return float64(both) / float64(max(1, len(a)+len(b)-both))
}

// blocks returns the blocks of a start.
func (s *Start) blocks() map[block]weight {
	all := map[block]weight{}
	for _, r := range s.Reads {
		for b := range blocksOf(r) {
			all[b] = weight{after: r.After, share: float64(r.Share)}
		}
	}
	return all
}

// blocksOf iterates over the blocks of a read.
func blocksOf(r Read) func(yield func(block) bool) {
	return func(yield func(block) bool) {
		for at := r.Off / Grain; at < r.End()/Grain; at++ {
			if !yield(block{r.Path, at}) {
				return
			}
		}
	}
}

// readsOf returns blocks as reads, in their order. Neighbours that are wanted together are
// one read.
func readsOf(all map[block]weight) []Read {
	reads := make([]Read, 0, len(all))
	for b, w := range all {
		reads = append(reads, Read{Path: b.path, Off: b.at * Grain, Size: Grain, After: w.after, Share: int(w.share + 0.5)})
	}
	slices.SortFunc(reads, func(a, b Read) int {
		return cmp.Or(cmp.Compare(a.After, b.After), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Off, b.Off))
	})
	joined := reads[:0]
	for _, r := range reads {
		if n := len(joined) - 1; n >= 0 && joined[n].Path == r.Path && joined[n].End() == r.Off && joined[n].Share == r.Share {
			joined[n].Size += Grain
			continue
		}
		joined = append(joined, r)
	}
	return slices.Clip(joined)
}

// trim keeps a profile in its bounds.
func (p *Profile) trim() {
	p.Starts = p.Starts[:min(len(p.Starts), MaxStarts)]
	left := MaxReads
	for i := range p.Starts {
		s := &p.Starts[i]
		s.Reads = s.Reads[:min(len(s.Reads), left)]
		if left -= len(s.Reads); len(s.Reads) == 0 {
			p.Starts = p.Starts[:i]
			return
		}
	}
}
