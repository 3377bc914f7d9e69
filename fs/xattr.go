package fs

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

// Linux limits: XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrNames = 64 << 10 // of one inode, each with a NUL
)

// What sets of xattrs take in bytes: an xattr beside its bytes, and a set.
const (
	xattrCost    = 32
	xattrSetCost = 64
)

// filterXattrs returns those of a list, sorted by name, that an inode of a type
// keeps, and what they make of its mode.
func filterXattrs(list []layerindex.Xattr, format uint32) ([]layerindex.Xattr, aclMode, error) {
	rises := func(i int) bool { return i == 0 || list[i-1].Name < list[i].Name }
	all, mode := true, noACL
	for i := range list {
		if !rises(i) {
			return filterXattrs(sortXattrs(list), format)
		}
		all = all && keepsXattr(list[i], format)
		if list[i].Name == accessACL {
			mode = modeOf(list[i].Value, format)
		}
	}
	if all {
		return list, mode, checkNames(list)
	}
	var kept []layerindex.Xattr
	for _, x := range list {
		if keepsXattr(x, format) {
			kept = append(kept, x)
		}
	}
	return kept, mode, checkNames(kept)
}

// sortXattrs returns a list sorted by name, with the last one of each name.
func sortXattrs(list []layerindex.Xattr) []layerindex.Xattr {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b layerindex.Xattr) int { return strings.Compare(a.Name, b.Name) })
	kept := sorted[:0]
	for i, x := range sorted {
		if i+1 == len(sorted) || sorted[i+1].Name != x.Name {
			kept = append(kept, x)
		}
	}
	return kept
}

// checkNames refuses more names than listxattr(2) can tell.
func checkNames(list []layerindex.Xattr) error {
	size := 0
	for _, x := range list {
		size += len(x.Name) + 1
	}
	if size > maxXattrNames {
		return fmt.Errorf("%w: %d bytes of xattr names", ErrEntry, size)
	}
	return nil
}

// mergeXattrs adds xattrs to a list that is sorted by name, which it uses up. The
// later one of a name wins.
func mergeXattrs(to, list []layerindex.Xattr) ([]layerindex.Xattr, error) {
	for _, x := range list {
		i, found := slices.BinarySearchFunc(to, x.Name, func(x layerindex.Xattr, name string) int {
			return strings.Compare(x.Name, name)
		})
		if found {
			to[i] = x
		} else {
			to = slices.Insert(to, i, x)
		}
	}
	return to, checkNames(to)
}

// seenCost is what a set counts at least for its number to be remembered by its
// slice. A smaller one is hashed as fast, and what remembers it would take more
// than the set.
const seenCost = 512

// A setTable has sets of xattrs, equal ones once.
type setTable struct {
	budget *layerindex.Budget
	list   [][]layerindex.Xattr // the first is empty; sorted by name
	// slots is a hash table of list: the upper half of a hash over a position;
	// 0 is free. Its length is a power of two.
	slots []uint64
	seed  maphash.Seed

	// stable says that the layer in hand gives equal lists as the same slice,
	// which does not change: then a long one need not be looked at twice.
	stable bool
	seen   map[seenSet]shared
}

type seenSet struct {
	first  *layerindex.Xattr
	format uint32
}

// A shared is what an inode keeps of a list: the number of a set, and what it makes
// of the mode.
type shared struct {
	set  uint32
	mode aclMode
}

func newSetTable(budget *layerindex.Budget) setTable {
	return setTable{budget: budget, list: make([][]layerindex.Xattr, 1), slots: make([]uint64, 64), seed: maphash.MakeSeed()}
}

// begin begins a layer.
func (t *setTable) begin(stable bool) { t.stable, t.seen = stable, map[seenSet]shared{} }

// end drops what only adding sets needs. Those to come are slices that do not
// change.
func (t *setTable) end() { t.seen, t.stable = nil, true }

// share returns what an inode with a mode keeps of a list.
func (t *setTable) share(list []layerindex.Xattr, mode uint16) (shared, error) {
	key := seenSet{&list[0], uint32(mode) & syscall.S_IFMT}
	if t.stable {
		if known, ok := t.seen[key]; ok {
			return known, nil
		}
	}
	kept, acl, err := filterXattrs(list, key.format)
	if err != nil {
		return shared{}, err
	}
	set, err := t.intern(kept, setCost(kept))
	s := shared{set, acl}
	if err == nil && t.stable && setCost(list) >= seenCost {
		t.seen[key] = s
	}
	return s, err
}

// setCost is what a set counts.
func setCost(list []layerindex.Xattr) int64 {
	cost := int64(xattrSetCost)
	for _, x := range list {
		cost += xattrCost + int64(len(x.Name)) + int64(len(x.Value))
	}
	return cost
}

// intern returns the number of a list, a new one, which takes cost bytes, if there
// is none like it.
func (t *setTable) intern(list []layerindex.Xattr, cost int64) (uint32, error) {
	if len(list) == 0 {
		return 0, nil
	}
	hash := t.hash(list)
	for i := t.slot(hash); t.slots[i] != 0; i = (i + 1) % len(t.slots) {
		if at := uint32(t.slots[i]); t.slots[i]>>32 == hash>>32 && slices.Equal(t.list[at], list) {
			return at, nil
		}
	}
	if err := t.budget.Take(cost); err != nil {
		return 0, err
	}
	if !t.stable {
		list = slices.Clone(list)
	}
	at := uint32(len(t.list))
	t.list = push(t.list, list)
	if len(t.list) > len(t.slots)/4*3 {
		t.grow()
	}
	t.enter(hash&^math.MaxUint32 | uint64(at))
	return at, nil
}

// slot returns the slot that a hash begins to look at.
func (t *setTable) slot(hash uint64) int { return int(hash >> 32 & uint64(len(t.slots)-1)) }

// enter puts what a slot holds into the first one that is free.
func (t *setTable) enter(held uint64) {
	i := t.slot(held)
	for t.slots[i] != 0 {
		i = (i + 1) % len(t.slots)
	}
	t.slots[i] = held
}

// grow makes room in the hash table for twice as many sets.
func (t *setTable) grow() {
	old := t.slots
	t.slots = make([]uint64, 2*len(old))
	for _, held := range old {
		if held != 0 {
			t.enter(held)
		}
	}
}

func (t *setTable) hash(list []layerindex.Xattr) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	var b [16]byte
	for _, x := range list {
		binary.LittleEndian.PutUint64(b[:], uint64(len(x.Name)))
		binary.LittleEndian.PutUint64(b[8:], uint64(len(x.Value)))
		h.Write(b[:])
		h.WriteString(x.Name)
		h.WriteString(x.Value)
	}
	return h.Sum64()
}
