package fs

import (
	"hash/maphash"
	"slices"
)

// A link is a name in a set of names.
type link struct {
	name  string
	set   uint32
	hash  uint32
	ino   uint32 // 0 if it was removed
	layer uint16 // that gave it
}

// A linkTable holds links in the order they were made, with a hash table of
// their positions: a third of the time and memory of a map.
type linkTable struct {
	all   []link
	slots []uint32 // position in all and one more, 0 if free; a power of two of them
	seed  maphash.Seed
}

func newLinkTable() linkTable {
	return linkTable{slots: make([]uint32, 1<<10), seed: maphash.MakeSeed()}
}

// reserve makes room for n links in a table that has none.
func (t *linkTable) reserve(n int) {
	t.all = slices.Grow(t.all, n)
	size := len(t.slots)
	for 3*size < 4*n {
		size *= 2
	}
	t.slots = make([]uint32, size)
}

// hash has a seed, for names come from strangers.
func (t *linkTable) hash(set uint32, name string) uint32 {
	// The multiplier spreads the sets, which are small numbers.
	h := maphash.String(t.seed, name) ^ uint64(set)*0x9e3779b97f4a7c15
	return uint32(h ^ h>>32)
}

// find returns the link of a name, or nil. It is valid until the next add.
func (t *linkTable) find(set uint32, name string) *link {
	return t.findHash(t.hash(set, name), set, name)
}

func (t *linkTable) findHash(hash, set uint32, name string) *link {
	mask := uint32(len(t.slots) - 1)
	for i := hash & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if l := &t.all[t.slots[i]-1]; l.hash == hash && l.set == set && l.name == name {
			return l
		}
	}
	return nil
}

// findOrAdd returns the link of a name, a new one if there is none.
func (t *linkTable) findOrAdd(set uint32, name string) *link {
	hash := t.hash(set, name)
	if l := t.findHash(hash, set, name); l != nil {
		return l
	}
	t.all = push(t.all, link{name: name, set: set, hash: hash})
	if 4*len(t.all) > 3*len(t.slots) {
		t.slots = make([]uint32, 2*len(t.slots))
		for i := range t.all {
			t.place(uint32(i))
		}
	} else {
		t.place(uint32(len(t.all) - 1))
	}
	return &t.all[len(t.all)-1]
}

// place puts a position into the first free slot for it.
func (t *linkTable) place(at uint32) {
	mask := uint32(len(t.slots) - 1)
	i := t.all[at].hash & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = at + 1
}

// push is append that doubles what is full. For large slices append copies
// several times as much on the way to the same length.
func push[E any](s []E, e E) []E {
	if len(s) == cap(s) {
		s = slices.Grow(s, max(len(s), 64))
	}
	return append(s, e)
}
