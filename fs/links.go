package fs

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
)

// A link is a name in a set of names.
type link struct {
	text  uint32 // where the name is
	set   uint32
	ino   uint32 // 0 if it was removed
	layer uint16 // that gave it
}

// A linkTable holds links in the order they were made, with a hash table of
// their positions: a third of the time and memory of a map.
type linkTable struct {
	all paged[link]
	// slots have the position in all and one more, 0 if free, and in the bits that this
	// leaves some of the hash: most links of other names are not looked at.
	slots []uint32
	tag   uint32 // those bits
	names *textWriter
	seed  maphash.Seed
}

// newLinkTable returns a table whose names are put into names.
func newLinkTable(room Room, names *textWriter) linkTable {
	t := linkTable{seed: maphash.MakeSeed(), all: paged[link]{room: room}, names: names}
	t.resize(1 << 10)
	return t
}

// resize makes a hash table that has nothing. It is on the heap, as what is looked at here
// and there should stay in memory.
func (t *linkTable) resize(n int) {
	t.slots, t.tag = make([]uint32, n), math.MaxUint32<<bits.Len(uint(n))
}

// reserve makes room in the hash table for n links, in a table that has none.
func (t *linkTable) reserve(n int) {
	if size := n + n/2; size > len(t.slots) {
		t.resize(size)
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
	if at, ok := t.positionHash(hash, set, name); ok {
		return t.all.at(at)
	}
	return nil
}

// position returns the position of the link of a name in all.
func (t *linkTable) position(set uint32, name string) (uint32, bool) {
	return t.positionHash(t.hash(set, name), set, name)
}

func (t *linkTable) positionHash(hash uint64, set uint32, name string) (uint32, bool) {
	tag := uint32(hash>>32) & t.tag
	for i := t.slot(hash); t.slots[i] != 0; {
		if s := t.slots[i]; s&t.tag == tag {
			at := s&^t.tag - 1
			if l := t.all.at(at); l.set == set && t.name(l) == name {
				return at, true
			}
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return 0, false
}

// add adds the link of a name that has none. It returns nil if there is no room
// for more names.
func (t *linkTable) add(set uint32, name string) *link {
	at := t.names.add(name, true)
	if at>>pieceBits >= maxPieces {
		return nil
	}
	return t.addText(set, name, uint32(at))
}

// addText is add for a name that is in names already.
func (t *linkTable) addText(set uint32, name string, text uint32) *link {
	hash := t.hash(set, name)
	last := t.all.push(link{text: text, set: set})
	if 4*t.all.n > 3*len(t.slots) {
		t.resize(2 * len(t.slots))
		for i := range uint32(t.all.n) {
			if i%ctxEntries == 0 && t.all.room != nil {
				t.all.room.Check()
			}
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
	t.slots[i] = uint32(hash>>32)&t.tag | (at + 1)
}

// settle brings the hash table to where the links are, when all have been added.
func (t *linkTable) settle() {
	if t.all.room != nil {
		t.slots = append(makeIn[uint32](t.all.room, len(t.slots)), t.slots...)
	}
}

// push is append that doubles what is full. For large slices append copies
// several times as much on the way to the same length.
func push[E any](s []E, e E) []E {
	if len(s) == cap(s) {
		s = slices.Grow(s, max(len(s), 64))
	}
	return append(s, e)
}
