package treediff

import (
	"bytes"
	"context"
	"io"
	"iter"
	"sync"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A walk is one comparison under way.
type walk struct {
	ctx   context.Context // of what is read
	opts  Options
	queue *queue
	// first are the first paths of inodes with several, on each side.
	first [2]map[fs.Node]string
	// contents are those of inodes with several paths that were read.
	contents map[[2]fs.Node]*verdict
	readers  sync.WaitGroup
}

// A verdict says whether two contents are the same, once done is closed.
type verdict struct {
	done chan struct{}
	same bool
	err  error
}

// sameContent compares the contents of two files, unless they have to be read for it:
// then it is not settled.
func (w *walk) sameContent(a, b fs.Node) (same, settled bool) {
	if a.Mode()&unix.S_IFMT != unix.S_IFREG || b.Mode()&unix.S_IFMT != unix.S_IFREG {
		return true, true // what differs is no content
	}
	if a.Attr().Size != b.Attr().Size {
		return false, true
	}
	if a.Attr().Size == 0 {
		return true, true
	}
	layerA, offA, _ := a.Provenance()
	layerB, offB, _ := b.Provenance()
	if layerA == layerB && layerA != "" && offA == offB && (w.opts.SameOffsets == nil || w.opts.SameOffsets(layerA)) {
		return true, true
	}
	// A digest that cannot be had is no reason to fail: the contents can still be read.
	if d, ok, err := a.ContentDigest(); ok && err == nil {
		if e, ok, err := b.ContentDigest(); ok && err == nil && d.Algorithm() == e.Algorithm() {
			return d == e, true
		}
	}
	return false, false
}

// maxReaders is how many pairs of files are read at once.
const maxReaders = 8

// read begins to read two files of the same size.
func (w *walk) read(a, b fs.Node) *verdict {
	key := [2]fs.Node{a, b}
	if v := w.contents[key]; v != nil {
		return v
	}
	w.queue.flushReaders(maxReaders - 1)
	v := &verdict{done: make(chan struct{})}
	if a.Attr().Nlink > 1 && b.Attr().Nlink > 1 {
		w.contents[key] = v
	}
	w.readers.Go(func() {
		defer close(v.done)
		v.same, v.err = equal(w.ctx, a, b)
	})
	return v
}

// pieceSize is how much is read of a file at a time.
const pieceSize = 256 << 10

// equal reads two files of the same size, until they differ. Holes that both have at the
// same place are not read: a file may consist of more of them than can be.
func equal(ctx context.Context, a, b fs.Node) (bool, error) {
	p := make([]byte, min(a.Attr().Size, pieceSize))
	q := make([]byte, len(p))
	for off, end := range runs(a, b) {
		for off < end {
			n := int(min(end-off, int64(len(p))))
			var errA, errB error
			var wg sync.WaitGroup
			wg.Go(func() { errA = readFull(ctx, a, p[:n], off) })
			errB = readFull(ctx, b, q[:n], off)
			wg.Wait()
			if errA != nil {
				return false, errA
			}
			if errB != nil {
				return false, errB
			}
			if !bytes.Equal(p[:n], q[:n]) {
				return false, nil
			}
			off += int64(n)
		}
	}
	return true, nil
}

// runs iterates over what is no hole in one of two files, or in both: from byte off to
// end, in their order.
func runs(a, b fs.Node) iter.Seq2[int64, int64] {
	return func(yield func(off, end int64) bool) {
		nextA, stopA := iter.Pull2(a.Data())
		defer stopA()
		nextB, stopB := iter.Pull2(b.Data())
		defer stopB()
		offA, endA, moreA := nextA()
		offB, endB, moreB := nextB()
		for done := int64(0); moreA || moreB; {
			var off, end int64
			if moreA && (!moreB || offA <= offB) {
				off, end = offA, endA
				offA, endA, moreA = nextA()
			} else {
				off, end = offB, endB
				offB, endB, moreB = nextB()
			}
			if off = max(off, done); off >= end {
				continue
			}
			if !yield(off, end) {
				return
			}
			done = end
		}
	}
}

// readFull reads len(p) bytes, which the file has.
func readFull(ctx context.Context, n fs.Node, p []byte, off int64) error {
	k, err := n.ReadAt(ctx, p, off)
	if k == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
