// Package filetable has a table of what is known of some of a tree's files. A
// look-up takes no lock and allocates nothing.
package filetable

import (
	"iter"
	"sync"
	"sync/atomic"

	"github.com/imgfs/imgfs/fs"
)

// Max is how many files a table has at most.
const Max = 1 << 16

const pageSize = 512

// A Table has a value for each of some files of one tree. It is safe for
// concurrent use after Init.
type Table[V any] struct {
	pages []atomic.Pointer[page[V]] // by inode number

	mu sync.Mutex
	n  int // files that have a value
}

type page[V any] [pageSize]atomic.Pointer[V]

// Init makes room for a tree with so many inodes.
func (t *Table[V]) Init(inodes int) {
	t.pages = make([]atomic.Pointer[page[V]], inodes/pageSize+1)
}

// Get returns the value of a file, nil if it has none.
func (t *Table[V]) Get(n fs.Node) *V { return t.get(n.Ino()) }

func (t *Table[V]) get(ino uint64) *V {
	if ino/pageSize >= uint64(len(t.pages)) {
		return nil
	}
	p := t.pages[ino/pageSize].Load()
	if p == nil {
		return nil
	}
	return p[ino%pageSize].Load()
}

// Make returns the value of a file. A file that has none gets v; if the table is
// full, or the file is none of the tree any more, Make returns nil.
func (t *Table[V]) Make(n fs.Node, v *V) *V { return t.make(n.Ino(), v) }

func (t *Table[V]) make(ino uint64, v *V) *V {
	if old := t.get(ino); old != nil {
		return old
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.get(ino)
	if old != nil || t.n == Max || ino/pageSize >= uint64(len(t.pages)) {
		return old
	}
	at := &t.pages[ino/pageSize]
	if at.Load() == nil {
		at.Store(&page[V]{})
	}
	at.Load()[ino%pageSize].Store(v)
	t.n++
	return v
}

// All iterates over the files that have values, by inode number.
func (t *Table[V]) All() iter.Seq2[uint64, *V] {
	return func(yield func(uint64, *V) bool) {
		for i := range t.pages {
			p := t.pages[i].Load()
			if p == nil {
				continue
			}
			for j := range p {
				if v := p[j].Load(); v != nil && !yield(uint64(i*pageSize+j), v) {
					return
				}
			}
		}
	}
}
