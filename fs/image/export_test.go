package image

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
)

// LimitDigests sets how many bytes the tables of digests may take.
func LimitDigests(t *Image, limit int64) { t.digests.limit = limit }

// DigestTables returns how many layers' digests are in memory.
func DigestTables(t *Image) int { return len(t.digests.lru) }

// KeptFiles returns the kept files of an image.
func KeptFiles(t *Image) *keptfile.Files { return t.kept }

// PassMendPause lets the time pass in which no index is made again.
func PassMendPause(t *Image) {
	for _, l := range t.layers.all {
		l.mend.mu.Lock()
		l.mend.next = time.Time{}
		l.mend.mu.Unlock()
	}
}

// Bounds returns what opts allow an image, with their defaults; 0 is no bound.
func Bounds(opts *Options) (metadata, layer, blob int64) {
	o := opts.withDefaults()
	return o.MaxMetadata, o.MaxLayer, o.MaxBlob
}

// Check is Layers.Check of an image.
func Check(ctx context.Context, t *Image) error { return t.layers.Check(ctx) }

// Uses returns by which indexes the layers of an image are read.
func Uses(t *Image) (uses []IndexUse) {
	for _, l := range t.layers.all {
		uses = append(uses, l.Use())
	}
	return uses
}
