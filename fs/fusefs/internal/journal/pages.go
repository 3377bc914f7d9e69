//go:build linux

package journal

import (
	"encoding/binary"
	"math/bits"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A page begins with what is known of its request, which lies behind it as it was read.
const (
	doneAt    = 0  // uint64: unique number of the last request that was answered
	triesAt   = 8  // uint32: how much its servers' deaths speak against it
	begunAt   = 12 // uint32: 1 when a server has begun to answer it
	requestAt = 64

	inHeader = 40 // struct fuse_in_header: length, opcode, unique number, node, ...
)

const (
	// resident is how many pages are locked in memory, and kept when they are free:
	// where so many requests are under way is the ordinary case.
	resident = 64
	// RequestSize is how long a request may be that is kept whole.
	RequestSize = pageSize - requestAt
)

// A Journal gives out pages for requests. It is safe for concurrent use.
type Journal struct {
	m *Memory

	mu    sync.Mutex
	free  *sync.Cond
	taken [Slots / 64]uint64
	used  int // pages of the first that have been locked
}

// NewJournal returns the journal in a memory. The pages of requests that were not answered
// are taken.
func NewJournal(m *Memory) *Journal {
	j := &Journal{m: m}
	j.free = sync.NewCond(&j.mu)
	for _, p := range j.Pending() {
		j.taken[p.slot/64] |= 1 << (p.slot % 64)
	}
	return j
}

// A Page is the place of a request. One goroutine has it at a time.
type Page struct {
	m    *Memory
	slot int
}

// Take returns a free page, the lowest, and waits until there is one. It is in memory, so
// that what the kernel copies to it arrives also if this process is killed meanwhile.
func (j *Journal) Take() Page {
	j.mu.Lock()
	slot, ok := j.lowest()
	for ; !ok; slot, ok = j.lowest() {
		j.free.Wait()
	}
	j.taken[slot/64] |= 1 << (slot % 64)
	lock := j.m.file != nil && slot < resident && slot >= j.used
	j.used = max(j.used, min(slot+1, resident))
	j.mu.Unlock()
	p := Page{j.m, slot}
	if lock {
		// Without the right to, the page stays for as long as memory is not short.
		_ = unix.Mlock(p.bytes())
	}
	p.Reset()
	return p
}

func (j *Journal) lowest() (slot int, ok bool) {
	for i, w := range j.taken {
		if w != ^uint64(0) {
			return i*64 + bits.TrailingZeros64(^w), true
		}
	}
	return 0, false
}

// Give takes a page back, whose request is done.
func (j *Journal) Give(p Page) {
	if p.slot >= resident {
		p.drop()
	}
	j.mu.Lock()
	j.taken[p.slot/64] &^= 1 << (p.slot % 64)
	j.mu.Unlock()
	j.free.Signal()
}

// Extra reports whether the page is one that there are for a rush, which is to be given
// back when it is done, as its memory is then.
func (p Page) Extra() bool { return p.slot >= resident }

// drop gives back the memory of a page. It then says that nothing is in it.
func (p Page) drop() {
	if os.Getpagesize() != pageSize {
		return
	}
	if p.m.file == nil {
		_ = unix.Madvise(p.bytes(), unix.MADV_DONTNEED)
		return
	}
	_ = unix.Fallocate(int(p.m.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(p.offset()), pageSize)
}

// Pending returns the pages with a request that was not answered.
func (j *Journal) Pending() (all []Page) {
	j.eachData(func(slot int) {
		p := Page{j.m, slot}
		length := binary.NativeEndian.Uint32(p.Request())
		if id := p.Unique(); id != 0 && id != p.done().Load() && length >= inHeader {
			all = append(all, p)
		}
	})
	return all
}

// UnderWay returns the unique numbers of requests that this process has read and not
// answered, and perhaps of some that it has.
func (j *Journal) UnderWay() (ids []uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, w := range j.taken {
		for ; w != 0; w &= w - 1 {
			p := Page{j.m, i*64 + bits.TrailingZeros64(w)}
			if id := p.Unique(); id != p.done().Load() {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// eachData calls f for each slot whose page may have been written.
func (j *Journal) eachData(f func(slot int)) {
	for slot := 0; slot < Slots; slot++ {
		if j.m.file == nil {
			return // nobody has left anything
		}
		at := Page{j.m, slot}.offset()
		next, err := unix.Seek(int(j.m.file.Fd()), int64(at), unix.SEEK_DATA)
		if err != nil || next >= tableOffset {
			return
		}
		slot = max(slot, (int(next)-pagesOffset)/pageSize)
		f(slot)
	}
}

func (p Page) offset() int { return pagesOffset + p.slot*pageSize }

func (p Page) bytes() []byte { return p.m.mem[p.offset() : p.offset()+pageSize] }

// Request returns the place of the request, RequestSize bytes.
func (p Page) Request() []byte { return p.bytes()[requestAt:] }

// Buffer returns the address of that place.
func (p Page) Buffer() *byte { return (*byte)(unsafe.Pointer(&p.m.mem[p.offset()+requestAt])) }

// Unique returns the unique number of the request.
func (p Page) Unique() uint64 { return p.m.long(p.offset() + requestAt + 8).Load() }

// Length returns how much of the request is in the page. What is longer is not whole.
func (p Page) Length() int {
	return int(min(binary.NativeEndian.Uint32(p.Request()), RequestSize))
}

// Reset makes the page ready for the next request. A page that is not in memory is by then.
func (p Page) Reset() {
	p.begun().Store(0)
	p.tries().Store(0)
}

// Begin notes that a server begins to answer the request: from here on its death may be
// the request's fault.
func (p Page) Begin() { p.begun().Store(1) }

// Begun reports whether a server had begun to answer the request when it died.
func (p Page) Begun() bool { return p.begun().Load() != 0 }

// Done notes that a request was answered, by its unique number.
func (p Page) Done() { p.done().Store(p.Unique()) }

// Blame notes that a server died while it answered the request, if it did, with a weight,
// and returns the sum of these.
func (p Page) Blame(weight uint32) uint32 {
	if p.begun().Swap(0) == 0 {
		return p.tries().Load()
	}
	// A page may say anything.
	sum := min(p.tries().Load(), 1000) + weight
	p.tries().Store(sum)
	return sum
}

func (p Page) done() *atomicLong  { return p.m.long(p.offset() + doneAt) }
func (p Page) tries() *atomicWord { return p.m.number(p.offset() + triesAt) }
func (p Page) begun() *atomicWord { return p.m.number(p.offset() + begunAt) }
