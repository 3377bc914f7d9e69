package keptfile

import (
	"context"
	"sync/atomic"

	"github.com/imgfs/imgfs/fs"
)

// A content reads the files of a layer from kept files, where there are any.
type content struct {
	Layer
	files *Files
	read  atomic.Int64 // bytes that came from kept files
}

// ReadHeldAt implements fs.Content: an open kept file is as good as memory.
func (x *content) ReadHeldAt(n fs.Node, p []byte, off int64) bool {
	if mayKeep(n) && x.readOpen(n, p, off) {
		x.read.Add(int64(len(p)))
		return true
	}
	return x.Layer.ReadHeldAt(n, p, off)
}

// readOpen fills p from the open kept file of a file that may have one.
func (x *content) readOpen(n fs.Node, p []byte, off int64) bool {
	c := x.files.candidateOf(n, x.Layer)
	if c == nil {
		return false
	}
	c.noteRead()
	// Kept files are told apart by what the index says of them.
	return (c.open.Load() != nil || c.shelved.Load()) && x.Refuted() == nil && x.files.readOpen(c, p, off)
}

// ReadFileAt implements fs.Content. It reads what ReadHeldAt could not.
func (x *content) ReadFileAt(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	if !mayKeep(n) || x.Refuted() != nil {
		return x.Layer.ReadFileAt(ctx, n, p, off)
	}
	k, c := x.files, x.files.candidateOf(n, x.Layer)
	if c == nil {
		return x.Layer.ReadFileAt(ctx, n, p, off)
	}
	c.noteRead()
	if o := k.before(ctx, c, off, int64(len(p))); o != nil && k.readFrom(o, p, off) {
		x.read.Add(int64(len(p)))
		return len(p), nil
	}
	got, err := x.Layer.ReadFileAt(ctx, n, p, off)
	if err != nil && ctx.Err() == nil {
		if o := k.rescue(ctx, c); o != nil && k.readFrom(o, p, off) {
			x.read.Add(int64(len(p)))
			return len(p), nil
		}
	}
	k.after(c)
	return got, err
}

// noteRead notes that somebody reads the file.
func (c *candidate) noteRead() {
	if !c.read.Load() {
		c.read.Store(true)
	}
}
