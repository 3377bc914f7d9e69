//go:build linux

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layout: offsets and sizes in bytes. All numbers are in the machine's byte order.
const (
	magic   = "imgfsrec"
	version = 1

	versionOffset = 8  // uint32
	orderOffset   = 12 // uint32: order, as the machine writes it
	slotsOffset   = 16 // uint32: Slots
	opensOffset   = 20 // uint32: Opens
	highestOffset = 24 // uint32: highest identifier of a backing file
	order         = 0x01020304

	recordsOffset = 4096 // state A, state B, note A, note B
	recordSize    = 128 << 10

	pagesOffset = 1 << 20
	pageSize    = 4096
	tableOffset = pagesOffset + Slots*pageSize
	openSize    = 32
	size        = tableOffset + Opens*openSize
)

const (
	// Slots is how many requests can be under way at a time.
	Slots = 16384
	// Opens is how many files can be open at a time that are in the table.
	Opens = 1 << 20
)

// These are errors of Open.
var (
	// ErrVersion says that another version of the layout is there.
	ErrVersion = errors.New("another version of it")
	// ErrDamaged says that the memory makes no sense.
	ErrDamaged = errors.New("damaged")
)

// A Memory is what a server leaves to the next.
type Memory struct {
	mem  []byte
	file *os.File // nil: nobody will read it
}

// New returns memory with nothing in it, in a new file.
func New() (*Memory, error) {
	fd, err := unix.MemfdCreate("imgfs-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "memfd:imgfs-state")
	if err := unix.Ftruncate(fd, size); err != nil {
		f.Close()
		return nil, err
	}
	// Nobody who has the file can take away what is mapped.
	_, _ = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	m, err := mapFile(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	m.number(versionOffset).Store(version)
	m.number(orderOffset).Store(order)
	m.number(slotsOffset).Store(Slots)
	m.number(opensOffset).Store(Opens)
	copy(m.mem, magic)
	return m, nil
}

// Anonymous returns memory that ends with this process.
func Anonymous() (*Memory, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	return &Memory{mem: mem}, nil
}

// Open returns the memory in a file, of which it is the owner from here on unless there is
// an error: one that wraps ErrVersion or ErrDamaged, or that of a system call.
func Open(f *os.File) (*Memory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	head := make([]byte, highestOffset)
	if n, err := unix.Pread(int(f.Fd()), head, 0); err != nil || n < len(head) || string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: no state of a mount", ErrDamaged)
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(head[at:]) }
	switch {
	case word(orderOffset) != order || word(versionOffset) != version:
		return nil, fmt.Errorf("%w: %d, want %d", ErrVersion, word(versionOffset), version)
	case st.Size != size || word(slotsOffset) != Slots || word(opensOffset) != Opens:
		return nil, fmt.Errorf("%w: it has another size", ErrDamaged)
	}
	return mapFile(f)
}

func mapFile(f *os.File) (*Memory, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &Memory{mem: mem, file: f}, nil
}

// File returns the file, which is the memory's, or nil.
func (m *Memory) File() *os.File { return m.file }

// Close gives up the memory, in which nobody must look any more, and the file.
func (m *Memory) Close() {
	_ = unix.Munmap(m.mem)
	m.mem = nil
	_ = m.file.Close() // nil does no harm
}

type (
	atomicWord = atomic.Uint32
	atomicLong = atomic.Uint64
)

// number returns a word of the memory, which another process may look at.
func (m *Memory) number(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&m.mem[at]))
}

// long returns two words. Their place is a multiple of 8.
func (m *Memory) long(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.mem[at]))
}
