//go:build linux

package journal

import "sync"

// An Opened is a file that is open, as the table has it.
type Opened struct {
	Slot   int    // where in the table
	Inode  uint64 // of the file
	Unique uint64 // number of the request that opened it
	// Decided says that it was decided how the kernel reads it: by itself, from the backing
	// file with the identifier ID, or not, if that is 0.
	Decided bool
	ID      int32
	// Ending says that it is released, and that ID may still be registered.
	Ending bool
}

// Offsets in an entry of the table.
const (
	openInode      = 0
	openUnique     = 8
	openID         = 16 // uint32
	openGeneration = 20 // uint32: how often the entry was used
	openState      = 24 // uint32

	stateFree    = 0
	stateOpen    = 1
	stateDecided = 2
	stateEnding  = 3
)

// A Table is the table of opens in a memory. It is safe for concurrent use.
type Table struct {
	m *Memory

	mu   sync.Mutex
	high int   // entries from here on were never used
	free []int // entries below that are free
}

// NewTable returns the table in a memory, and what is open by it.
func NewTable(m *Memory) (*Table, []Opened) {
	t := &Table{m: m}
	var open []Opened
	if m.file == nil {
		return t, nil
	}
	// Entries are used from the first on, and one that was used has a generation.
	for ; t.high < Opens && t.generation(t.high).Load() != 0; t.high++ {
		o := t.read(t.high)
		switch state := t.state(t.high).Load(); state {
		case stateFree:
			t.free = append(t.free, t.high)
			continue
		case stateDecided:
			o.Decided = true
		case stateEnding:
			o.Ending = true
		}
		open = append(open, o)
	}
	return t, open
}

func (t *Table) read(slot int) Opened {
	return Opened{
		Slot:   slot,
		Inode:  t.m.long(t.at(slot) + openInode).Load(),
		Unique: t.m.long(t.at(slot) + openUnique).Load(),
		ID:     int32(t.m.number(t.at(slot) + openID).Load()),
	}
}

func (t *Table) at(slot int) int                 { return tableOffset + slot*openSize }
func (t *Table) state(slot int) *atomicWord      { return t.m.number(t.at(slot) + openState) }
func (t *Table) generation(slot int) *atomicWord { return t.m.number(t.at(slot) + openGeneration) }

// Add notes that a request opens a file. It returns false if the table is full.
func (t *Table) Add(inode, unique uint64) (slot int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		slot, t.free = t.free[n-1], t.free[:n-1]
	} else if t.high < Opens {
		slot = t.high
		t.high++
	} else {
		return 0, false
	}
	t.m.long(t.at(slot) + openInode).Store(inode)
	t.m.long(t.at(slot) + openUnique).Store(unique)
	t.m.number(t.at(slot) + openID).Store(0)
	t.state(slot).Store(stateOpen)
	// Last, as it says of a new entry that there is one.
	g := t.generation(slot)
	g.Store(max(g.Load()+1, 1))
	return slot, true
}

// Decide notes how the kernel reads a file that is open.
func (t *Table) Decide(slot int, id int32) {
	t.m.number(t.at(slot) + openID).Store(uint32(id))
	t.state(slot).Store(stateDecided)
}

// Decided reports whether that was noted.
func (t *Table) Decided(slot int) bool { return t.state(slot).Load() == stateDecided }

// End notes that a file is released whose backing file is not needed any more.
func (t *Table) End(slot int) { t.state(slot).Store(stateEnding) }

// Remove takes an entry away.
func (t *Table) Remove(slot int) {
	t.state(slot).Store(stateFree)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free = append(t.free, slot)
}

// Handle returns the handle for a file that is open, which is not 0.
func (t *Table) Handle(slot int) uint64 {
	return uint64(t.generation(slot).Load())<<32 | uint64(slot)
}

// Slot returns the entry of a handle, if the file is still open by it.
func (t *Table) Slot(handle uint64) (slot int, ok bool) {
	slot = int(uint32(handle))
	t.mu.Lock()
	high := t.high
	t.mu.Unlock()
	if slot >= high || t.generation(slot).Load() != uint32(handle>>32) {
		return 0, false
	}
	state := t.state(slot).Load()
	return slot, state == stateOpen || state == stateDecided
}

// Inode returns the inode of an entry.
func (t *Table) Inode(slot int) uint64 { return t.m.long(t.at(slot) + openInode).Load() }

// Highest returns the highest identifier of a backing file that was noted.
func (t *Table) Highest() int32 { return int32(t.m.number(highestOffset).Load()) }

// Note notes an identifier.
func (t *Table) Note(id int32) {
	h := t.m.number(highestOffset)
	for {
		old := h.Load()
		if int32(old) >= id || h.CompareAndSwap(old, uint32(id)) {
			return
		}
	}
}
