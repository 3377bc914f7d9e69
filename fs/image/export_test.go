package image

import (
	"time"

	"github.com/imgfs/imgfs/fs"
)

// LimitDigests sets how many bytes the tables of digests may take.
func LimitDigests(t *Image, limit int64) { t.digests.limit = limit }

// DigestTables returns how many layers' digests are in memory.
func DigestTables(t *Image) int { return len(t.digests.lru) }

const (
	MinContent      = minContent
	CheckAtOpen     = checkAtOpen
	MaxOpenContents = maxOpenContents
	IdleTicks       = idleTicks
	MaxContentJobs  = maxContentJobs
)

// WaitContents waits until nothing is looked for, checked or made.
func WaitContents(t *Image) { t.contents.work.Wait() }

// TickContents lets the time pass after which contents are closed that were
// not read.
func TickContents(t *Image) { t.contents.onTick() }

// Decoded returns how much was decoded to read a file, and how much it takes to
// decode all of it.
func Decoded(t *Image, n fs.Node) (decoded, cost int64) {
	c := t.contents.candidate(n)
	return c.decoded.Load(), c.cost
}

// PassMendPause lets the time pass in which no index is made again.
func PassMendPause(t *Image) {
	for _, l := range t.layers.all {
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
func WrapContentDir(t *Image, wrap func(ContentDir) ContentDir) {
	t.contents.dir = wrap(t.contents.dir)
}

// Bounds returns what opts allow an image, with their defaults; 0 is no bound.
func Bounds(opts *Options) (metadata, layer, blob int64) {
	o := opts.withDefaults()
	return o.MaxMetadata, o.MaxLayer, o.MaxBlob
}
