package blobfile

import "os"

// hole returns how many bytes of blocks have a byte of chunk k and none of another
// chunk that present says is there, and where they begin: what can be taken from the
// file when chunk k goes.
func (l Layout) hole(k int64, present func(k int64) bool) (off, n int64) {
	at, end := l.Bounds(k)
	off, stop := at/BlockSize*BlockSize, blockEnd(end)
	if l.Table == nil {
		return off, stop - off
	}
	cuts := l.Table.cuts
	for i := k - 1; i >= 0 && cuts[i].end > off; i-- {
		if present(i) {
			off = blockEnd(cuts[i].end)
			break
		}
	}
	for i := k + 1; i < int64(len(cuts)) && cuts[i].off < stop; i++ {
		if present(i) {
			stop = cuts[i].off / BlockSize * BlockSize
			break
		}
	}
	return off, max(0, stop-off)
}

// blockEnd returns the end of the block that ends at off or behind it.
func blockEnd(off int64) int64 { return (off + BlockSize - 1) / BlockSize * BlockSize }

// PunchAbsent makes holes where chunk k has been, which is not there any more, but for
// what other chunks have that are there, as present says. The error is that of the first hole
// that could not be made.
func (l Layout) PunchAbsent(f *os.File, k int64, present func(k int64) bool) error {
	if off, n := l.hole(k, present); n > 0 {
		return Punch(f, off, n)
	}
	return nil
}

// PunchOwn is PunchAbsent for one who does not know which other chunks are there, or
// are being written: it leaves alone what any of them may have.
func (l Layout) PunchOwn(f *os.File, k int64) error {
	return l.PunchAbsent(f, k, func(int64) bool { return true })
}

// A Disk adds up what chunks take on disk, one after the other, each block once.
type Disk struct {
	Bytes int64
	end   int64 // of what was added up
}

// Add adds chunk k, which lies behind those that were added before.
func (d *Disk) Add(l Layout, k int64) {
	off, end := l.Bounds(k)
	off, end = max(off/BlockSize*BlockSize, d.end), blockEnd(end)
	if off < end {
		d.Bytes += end - off
		d.end = end
	}
}

// A Count adds up what chunks have, one after the other, each byte once.
type Count struct {
	Bytes int64
	end   int64 // of what was added up
}

// Add adds chunk k, which lies behind those that were added before.
func (c *Count) Add(l Layout, k int64) {
	off, end := l.Bounds(k)
	c.Bytes += end - max(off, c.end)
	c.end = end
}
