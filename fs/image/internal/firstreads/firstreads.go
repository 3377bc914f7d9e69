// Package firstreads notes which parts of files are read for the first time, and when.
package firstreads

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/filetable"
	"github.com/imgfs/imgfs/fs/profile"
)

// maxBlocks is how many blocks of one file are told apart: those of 256 MiB. Nothing of what
// lies behind them is noted.
const maxBlocks = 4096

// A Part is a part of a file that was read for the first time.
type Part struct {
	Ino   uint64
	First int64 // its first block of profile.Grain bytes
	Count int64
	After time.Duration // since New
}

// A Recorder notes the parts of one tree's files. It is safe for concurrent use.
type Recorder struct {
	begun time.Time
	fresh func(n fs.Node, off int64)
	files filetable.Table[blocks]

	mu    sync.Mutex
	parts []Part
}

// blocks has a bit for each block of a file that was read.
type blocks []atomic.Uint64

// New returns a Recorder for a tree. fresh, if not nil, is told of each block of profile.Grain
// bytes of a file of which something is read for the first time, and of the byte where it
// begins, by any goroutine, which it must not hold up.
func New(tree *fs.Tree, fresh func(n fs.Node, off int64)) *Recorder {
	r := &Recorder{begun: time.Now(), fresh: fresh}
	r.files.Init(tree.Len())
	return r
}

// Note notes a read of size bytes from off. Of what was read before that takes some
// nanoseconds, and allocates nothing.
func (r *Recorder) Note(n fs.Node, off, size int64) {
	first, last := off/profile.Grain, (off+size-1)/profile.Grain
	b := r.files.Get(n)
	if b == nil {
		if b = r.begin(n); b == nil {
			return
		}
	}
	for k := first; k <= last && k < int64(64*len(*b)); k++ {
		word, bit := &(*b)[k/64], uint64(1)<<(k%64)
		if word.Load()&bit == 0 && word.Or(bit)&bit == 0 {
			r.add(n, k)
		}
	}
}

// Seen reports whether the block of a file that has byte off was noted.
func (r *Recorder) Seen(n fs.Node, off int64) bool {
	b, k := r.files.Get(n), off/profile.Grain
	return b != nil && k < int64(64*len(*b)) && (*b)[k/64].Load()&(1<<(k%64)) != 0
}

// begin makes room for the blocks of a file; nil if there are too many files.
func (r *Recorder) begin(n fs.Node) *blocks {
	count := min((n.Attr().Size+profile.Grain-1)/profile.Grain, maxBlocks)
	b := make(blocks, (count+63)/64)
	return r.files.Make(n, &b)
}

// add adds a block that was not read before.
func (r *Recorder) add(n fs.Node, k int64) {
	if r.append(n.Ino(), k) && r.fresh != nil {
		r.fresh(n, k*profile.Grain)
	}
}

// append reports whether the block was added: there may be too many.
func (r *Recorder) append(ino uint64, k int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.parts) - 1; n >= 0 && r.parts[n].Ino == ino && r.parts[n].First+r.parts[n].Count == k {
		r.parts[n].Count++
		return true
	}
	if len(r.parts) == profile.MaxReads {
		return false
	}
	r.parts = append(r.parts, Part{Ino: ino, First: k, Count: 1, After: time.Since(r.begun)})
	return true
}

// Parts returns what was noted so far, in its order. all is false if there was more than a
// profile can have.
func (r *Recorder) Parts() (parts []Part, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Part(nil), r.parts...), len(r.parts) < profile.MaxReads
}
