package layerindex

import (
	"fmt"
	"sync/atomic"
)

// MaxEntries is how many entries the layers of one image may have together. An image
// of more is an attack on memory.
const MaxEntries = 1 << 24

// The bytes that things count: about the memory that a tree takes for them.
const (
	entryCost = 64 // an inode and a link to it
	nameCost  = 16 // a name, beside its bytes
	// ExtentCost is what a run of data in a sparse file counts.
	ExtentCost = 24
	setCost    = 64 // a set of attributes
	attrCost   = 32 // an attribute in a set, beside the bytes of name and value
	pointCost  = 48 // a checkpoint, beside its window as it is stored
	proofCost  = 48 // a proof
	// grownStep is how far a Budget's use grows before it says so again.
	grownStep = 16 << 20
)

// A Budget counts the metadata of one image: names, attributes, extents and entries
// of all its layers. It is safe for concurrent use. A nil *Budget bounds nothing.
type Budget struct {
	limit   int64 // 0: none
	grown   func(used int64)
	used    atomic.Int64
	entries atomic.Int64
	whole   *Budget // that it is a part of
}

// NewBudget returns a budget of limit bytes; 0 means no bound but MaxEntries. grown, if
// not nil, is called now and then with the number of bytes in use, by any goroutine.
func NewBudget(limit int64, grown func(used int64)) *Budget {
	return &Budget{limit: limit, grown: grown}
}

// Part returns a budget for one layer, or for a part of that. Its use counts in b too,
// and Undo takes it back.
func (b *Budget) Part() *Budget {
	if b == nil {
		return nil
	}
	return &Budget{limit: b.limit, whole: b}
}

// Undo gives everything back that a Part has counted.
func (b *Budget) Undo() {
	if b != nil {
		b.whole.Release(b.used.Swap(0))
		b.whole.addEntries(-b.entries.Swap(0))
	}
}

// addEntries counts n entries, also in what b is a part of, and returns how many the
// whole image has.
func (b *Budget) addEntries(n int64) int64 {
	all := b.entries.Add(n)
	if b.whole != nil {
		return b.whole.addEntries(n)
	}
	return all
}

// Take counts n bytes more. The error wraps ErrMetadata.
func (b *Budget) Take(n int64) error {
	if b == nil {
		return nil
	}
	used := b.used.Add(n)
	if b.whole != nil {
		return b.whole.Take(n)
	}
	if used < n || b.limit > 0 && used > b.limit {
		return b.refuse()
	}
	if b.grown != nil && used/grownStep != (used-n)/grownStep {
		b.grown(used)
	}
	return nil
}

// Release gives n bytes back that Take has counted.
func (b *Budget) Release(n int64) {
	if b != nil {
		b.used.Add(-n)
		b.whole.Release(n)
	}
}

// Used returns how many bytes are counted.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// fits compares n bytes of so many entries with what is left, and takes nothing.
func (b *Budget) fits(entries, n int64) error {
	switch {
	case entries < 0 || entries > MaxEntries:
		return fmt.Errorf("%w: %d, and the image may have %d", ErrEntries, entries, MaxEntries)
	case b != nil && b.limit > 0 && n > b.limit-b.Used():
		return b.refuse()
	}
	return nil
}

func (b *Budget) refuse() error {
	return fmt.Errorf("%w: they take more than %d bytes of memory", ErrMetadata, b.limit)
}

// takeEntries counts n entries, with the names, but not what else they have.
func (b *Budget) takeEntries(n, names int64) error {
	if b == nil {
		return nil
	}
	if all := b.addEntries(n); all > MaxEntries || all < n {
		return fmt.Errorf("%w: more than %d", ErrEntries, MaxEntries)
	}
	return b.Take(n*(entryCost+nameCost) + names)
}

// takeEntry counts an entry, without its attributes: those are shared.
func (b *Budget) takeEntry(e *Entry) error {
	return b.takeEntries(1, int64(len(e.Name))+int64(len(e.Linkname))+ExtentCost*int64(len(e.Sparse)))
}

// attrsCost is what a set of attributes counts.
func attrsCost(set []Xattr) int64 {
	n := int64(setCost)
	for _, x := range set {
		n += attrCost + int64(len(x.Name)) + int64(len(x.Value))
	}
	return n
}

// entryError names the entry at which a budget was used up.
func entryError(name string, err error) error {
	return fmt.Errorf("entry %q: %w", name[:min(len(name), 64)], err)
}
