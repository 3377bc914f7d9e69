package profile

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	// Likely is the share from which on a read is worth fetching.
	Likely = 50
	// shared is the share of all starts from which on it is before anything tells which of
	// them comes: more than the half that one of two starts has.
	shared = 60
)

// A Chooser decides what of a profile is fetched, by what is read. It is safe for concurrent
// use.
type Chooser struct {
	starts []Start
	of     map[string][]int // by path, the starts that read it

	mu    sync.Mutex
	begun []bool
	given map[block]bool
}

// NewChooser returns a Chooser. The profile must not be changed any more.
func NewChooser(p *Profile) *Chooser {
	c := &Chooser{starts: p.Starts, of: map[string][]int{}, begun: make([]bool, len(p.Starts)), given: map[block]bool{}}
	for i, s := range p.Starts {
		for _, r := range s.Reads {
			if of := c.of[r.Path]; r.Share >= Likely && (len(of) == 0 || of[len(of)-1] != i) {
				c.of[r.Path] = append(of, i)
			}
		}
	}
	return c
}

// Paths iterates over the paths that Read can be told of.
func (c *Chooser) Paths() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for p := range c.of {
			if !yield(p) {
				return
			}
		}
	}
}

// First returns what is likely to be read whichever of the starts comes, in order.
func (c *Chooser) First() []Read {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := 0.0
	shares := map[block]*weight{}
	var order []block
	for i := range c.starts {
		odds := c.odds(i)
		all += odds
		for _, r := range c.starts[i].Reads {
			for b := range blocksOf(r) {
				w := shares[b]
				if w == nil {
					w = &weight{after: r.After}
					shares[b] = w
					order = append(order, b)
				}
				w.share += odds * float64(r.Share)
				w.after = min(w.after, r.After)
			}
		}
	}
	slices.SortStableFunc(order, func(a, b block) int { return cmp.Compare(shares[a].after, shares[b].after) })
	var reads []Read
	for _, b := range order {
		if w := shares[b]; w.share >= shared*all || len(c.starts) == 1 && w.share >= Likely*all {
			reads = c.give(reads, b, w.after, int(w.share/all))
		}
	}
	return reads
}

// odds says how likely a start is beside others: the more often it was seen.
func (c *Chooser) odds(i int) float64 { return float64(min(c.starts[i].Runs, memory)) }

// Read says that something of a file is read, and returns what is likely to be read next
// and was not returned yet: all of the starts of which that file is a mark, since few others
// read it.
func (c *Chooser) Read(path string) []Read {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.of[path]
	if len(of) > max(1, len(c.starts)/3) {
		return nil
	}
	var reads []Read
	for _, i := range of {
		if c.begun[i] {
			continue
		}
		c.begun[i] = true
		for _, r := range c.starts[i].Reads {
			if r.Share < Likely {
				continue
			}
			for b := range blocksOf(r) {
				reads = c.give(reads, b, r.After, r.Share)
			}
		}
	}
	return reads
}

// give adds a block to reads, unless it was given before. The caller holds mu.
func (c *Chooser) give(reads []Read, b block, after time.Duration, share int) []Read {
	if c.given[b] {
		return reads
	}
	c.given[b] = true
	if n := len(reads) - 1; n >= 0 && reads[n].Path == b.path && reads[n].End() == b.at*Grain && reads[n].Share == share {
		reads[n].Size += Grain
		return reads
	}
	return append(reads, Read{Path: b.path, Off: b.at * Grain, Size: Grain, After: after, Share: share})
}
