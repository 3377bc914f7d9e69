package fs

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/layerindex"
)

// Uncounted returns a tree that does not count what is read from it.
func Uncounted(t *Tree) *Tree {
	u := *t
	u.counts = nil
	return &u
}

// LimitDigests sets how many bytes the tables of digests may take.
func LimitDigests(t *Tree, limit int64) { t.digests.limit = limit }

// DigestTables returns how many layers' digests are in memory.
func DigestTables(t *Tree) int { return len(t.digests.lru) }

const (
	MinContent      = minContent
	CheckAtOpen     = checkAtOpen
	MaxOpenContents = maxOpenContents
	IdleTicks       = idleTicks
	MaxContentJobs  = maxContentJobs
)

// WaitContents waits until nothing is looked for, checked or made.
func WaitContents(t *Tree) { t.contents.work.Wait() }

// TickContents lets the time pass after which contents are closed that were
// not read.
func TickContents(t *Tree) { t.contents.onTick() }

// Decoded returns how much was decoded to read a file, and how much it takes to
// decode all of it.
func Decoded(n Node) (decoded, cost int64) {
	c := n.t.contents.candidate(n)
	return c.decoded.Load(), c.cost
}

// PassMendPause lets the time pass in which no index is made again.
func PassMendPause(t *Tree) {
	for _, l := range t.layers {
		l.mend.mu.Lock()
		l.mend.next = time.Time{}
		l.mend.mu.Unlock()
	}
}

type (
	ContentDir  = contentDir
	ContentFile = contentFile
)

// WrapContentDir puts something between a tree and where contents are kept.
func WrapContentDir(t *Tree, wrap func(ContentDir) ContentDir) {
	t.contents.dir = wrap(t.contents.dir)
}

// MergeWithin is Merge of layers that are not looked through again, with a bound
// on all steps.
func MergeWithin(ctx context.Context, steps int64, layers []Layer) (*Tree, error) {
	b, err := newBuilder(ctx, nil, len(layers))
	if err != nil {
		return nil, err
	}
	b.maxSteps = steps
	for _, l := range layers {
		if err := b.apply(l); err != nil {
			return nil, err
		}
	}
	return b.freeze()
}

// Bounds returns what opts allow an image, with their defaults; 0 is no bound.
func Bounds(opts *Options) (metadata, layer, blob int64) {
	o := opts.withDefaults()
	return o.MaxMetadata, o.MaxLayer, o.MaxBlob
}

// MergeCounted merges a layer whose lists of xattrs do not change, and returns
// what that counts.
func MergeCounted(ctx context.Context, l Layer) (*Tree, int64, error) {
	budget := layerindex.NewBudget(0, nil)
	b, err := newBuilder(ctx, budget, 1)
	if err != nil {
		return nil, 0, err
	}
	l.stable = true
	if err := b.apply(l); err != nil {
		return nil, 0, err
	}
	t, err := b.freeze()
	return t, budget.Used(), err
}
