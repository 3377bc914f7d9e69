package directory

import (
	"math"
	"time"
)

// PruneOptions says what Prune removes.
type PruneOptions struct {
	// All: everything, but for files that another process is writing now, kept
	// files that are open, and layer indexes that are held for mounts.
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
	Held          int   // indexes that mounts need, and that stayed
}

// Prune removes content from the directory. Mounts that use it go on, and
// fetch what they need again. What could not be removed stays, without an
// error: see PruneResult.After. The error is that of a directory that cannot
// be read, or that another process keeps to itself.
func (c *Dir) Prune(opts PruneOptions) (PruneResult, error) {
	var r PruneResult
	if c.readOnly != nil {
		return r, c.readOnly
	}
	err := c.Room.Locked(func() error {
		inv, err := Walk(c.files)
		if err != nil {
			return err
		}
		r.Before = inv.Total
		e := Eviction{Inv: inv, BlobsOf: c.blobsOf, now: time.Now(), Rule: Rule{Indexes: true}}
		e.prune(opts)
		r.Blobs, r.Indexes, r.Contents, r.Held = e.Blobs, e.indexes, e.Contents, e.held
		inv, err = c.Room.Recount()
		r.After = inv.Total
		return err
	})
	return r, err
}

// prune does what the user has asked for.
func (e *Eviction) prune(opts PruneOptions) {
	switch {
	case opts.All:
		e.sweep()
		for _, f := range e.Inv.Files {
			switch f.Kind {
			case KindBlob:
				e.removeBlob(f)
			case KindIndex, KindImage, kindMeta:
				e.remove(f)
			case KindKept:
				e.removeContent(f)
			}
		}
		return
	case opts.OlderThan > 0:
		e.Want = math.MaxInt64
		old := e.now.Add(-opts.OlderThan)
		e.Rule.before = uint32(max(old.Unix(), 1))
		e.sweep()
		e.Chunks()
		e.shells()
		for _, f := range e.Inv.Files {
			if (f.Kind == KindIndex || f.Kind == KindImage || f.Kind == kindMeta) && f.Mtime.Before(old) {
				e.remove(f)
			}
		}
		e.images()
	}
	if left := e.Inv.Total - e.freed; opts.To >= 0 && left > opts.To {
		again, err := Walk(e.Inv.dir)
		if err != nil {
			return
		}
		e.Inv, e.Rule.before, e.empty, e.keyed = again, 0, nil, nil
		e.held = 0 // they are met again
		e.freed, e.Want = 0, again.Total-opts.To
		e.Run()
	}
}
