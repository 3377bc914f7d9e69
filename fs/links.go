package fs

import (
	"hash/maphash"
	"slices"
)

// A link is a name in a set of names.
type link struct {
	text  uint32 // where the name is
	set   uint32
	ino   uint32 // 0 if it was removed
	layer uint16 // that gave it
	tag   uint16 // of the name's hash
}

// A linkTable holds links in the order they were made, with a hash table of
// their positions: a third of the time and memory of a map.
type linkTable struct {
	all   paged[link]
	slots []uint32 // position in all and one more, 0 if free
	names textWriter
	seed  maphash.Seed
}

func newLinkTable() linkTable {
	return linkTable{slots: make([]uint32, 1<<10), seed: maphash.MakeSeed()}
}

// reserve makes room in the hash table for n links, in a table that has none.
func (t *linkTable) reserve(n int) {
	if size := n + n/2; size > len(t.slots) {
		t.slots = make([]uint32, size)
	}
}

// hash has a seed, for names come from strangers.
func (t *linkTable) hash(set uint32, name string) uint64 {
	// The multiplier spreads the sets, which are small numbers.
	h := maphash.String(t.seed, name) ^ uint64(set)*0x9e3779b97f4a7c15
	return h ^ h>>32
}

// name returns the name of a link. It stays valid.
func (t *linkTable) name(l *link) string { return t.names.counted(l.text) }

// slot returns the slot that a hash begins to look at.
func (t *linkTable) slot(hash uint64) int {
	return int(hash & 0xffffffff * uint64(len(t.slots)) >> 32)
}

// find returns the link of a name, or nil. It is valid until the next add.
func (t *linkTable) find(set uint32, name string) *link {
	return t.findHash(t.hash(set, name), set, name)
}

func (t *linkTable) findHash(hash uint64, set uint32, name string) *link {
	for i := t.slot(hash); t.slots[i] != 0; {
		if l := t.all.at(t.slots[i] - 1); l.tag == uint16(hash>>48) && l.set == set && t.name(l) == name {
			return l
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return nil
}

// add adds the link of a name that has none. It returns nil if there is no room
// for more names.
func (t *linkTable) add(set uint32, name string) *link {
	at := t.names.add(name, true)
	if at>>pieceBits >= maxPieces {
		return nil
	}
	hash := t.hash(set, name)
	last := t.all.push(link{text: uint32(at), set: set, tag: uint16(hash >> 48)})
	if 4*t.all.n > 3*len(t.slots) {
		t.slots = make([]uint32, 2*len(t.slots))
		for i := range uint32(t.all.n) {
			l := t.all.at(i)
			t.place(i, t.hash(l.set, t.name(l)))
		}
	} else {
		t.place(last, hash)
	}
	return t.all.at(last)
}

// place puts a position into the first free slot for it.
func (t *linkTable) place(at uint32, hash uint64) {
	i := t.slot(hash)
	for t.slots[i] != 0 {
		if i++; i == len(t.slots) {
			i = 0
		}
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
