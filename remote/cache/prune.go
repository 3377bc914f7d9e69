package cache

import (
	"math"
	"time"
)

// PruneOptions says what Prune removes.
type PruneOptions struct {
	// All: everything, but for files that another process is writing now, and
	// contents that are open.
	All bool
	// OlderThan, if not 0: what was not used for so long.
	OlderThan time.Duration
	// To, if not negative: what was used least recently, until the directory
	// takes at most so many bytes.
	To int64
}

// A PruneResult is what Prune did.
type PruneResult struct {
	Before, After int64 // bytes on disk, as Usage counts
	Blobs         int   // that lost all they had
	Indexes       int   // removed
	Contents      int   // removed
}

// Prune removes content from the directory. Mounts that use it go on, and
// fetch what they need again. What could not be removed stays, without an
// error: see PruneResult.After. The error is that of a directory that cannot
// be read, or that another process keeps to itself.
func (c *directory) Prune(opts PruneOptions) (PruneResult, error) {
	var r PruneResult
	if c.readOnly != nil {
		return r, c.readOnly
	}
	err := c.budget.locked(func() error {
		inv, err := walk(c.files)
		if err != nil {
			return err
		}
		r.Before = inv.total
		e := eviction{inv: inv, blobsOf: c.blobsOf, now: time.Now(), rule: rule{indexes: true}}
		e.prune(opts)
		r.Blobs, r.Indexes, r.Contents = e.blobs, e.indexes, e.contents
		inv, err = c.budget.recount()
		r.After = inv.total
		return err
	})
	return r, err
}

// prune does what the user has asked for.
func (e *eviction) prune(opts PruneOptions) {
	switch {
	case opts.All:
		e.sweep()
		for _, f := range e.inv.files {
			switch f.kind {
			case kindBlob:
				e.removeBlob(f)
			case kindIndex, kindImage, kindMeta:
				e.remove(f)
			case kindKept:
				e.removeContent(f)
			}
		}
		return
	case opts.OlderThan > 0:
		e.want = math.MaxInt64
		old := e.now.Add(-opts.OlderThan)
		e.rule.before = uint32(max(old.Unix(), 1))
		e.sweep()
		e.chunks()
		e.shells()
		for _, f := range e.inv.files {
			if (f.kind == kindIndex || f.kind == kindImage || f.kind == kindMeta) && f.mtime.Before(old) {
				e.remove(f)
			}
		}
		e.images()
	}
	if left := e.inv.total - e.freed; opts.To >= 0 && left > opts.To {
		again, err := walk(e.inv.dir)
		if err != nil {
			return
		}
		e.inv, e.rule.before, e.empty = again, 0, nil
		e.freed, e.want = 0, again.total-opts.To
		e.run()
	}
}
