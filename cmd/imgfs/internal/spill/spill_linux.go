package spill

import (
	"bytes"
	"context"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunk is how much of the file is mapped at a time.
	chunk = 8 << 20
	// populate is the size of arrays that are soon full: their pages come all at once.
	populate = 1 << 20
	// least is how much memory must have come since what is in the arena was dropped.
	least = 4 << 20
	// garbage is how much more memory there must be beside what is in the arena until
	// garbage is collected for it.
	garbage = 8 << 20
	// often and seldom are how long it is until the process is looked at again: while it is
	// near its limit, and else.
	often, seldom = 5 * time.Millisecond, 50 * time.Millisecond
)

// An Arena gives out memory until the process ends. It is safe for concurrent use.
type Arena struct {
	// Limit is how many bytes of memory the process may have.
	Limit int64

	mu     sync.Mutex
	file   File
	size   int64
	free   []byte
	chunks [][]byte
	floor  int64 // memory of the process when what is in the arena was dropped last
	freed  int64 // and when garbage was collected for that
	statm  *os.File
}

// New makes an arena of an empty file, for a process that is to have no more than limit
// bytes of memory. The file may be closed: memory that has been given out stays.
func New(file File, limit int64) (*Arena, error) {
	statm, err := os.Open("/proc/self/statm")
	if err != nil {
		return nil, err
	}
	return &Arena{Limit: limit, file: file, statm: statm}, nil
}

// Alloc returns zeroed memory, which is never unmapped, or nil if the disk has no room. The
// room on the disk is taken now: writing to the memory does not fail later.
func (a *Arena) Alloc(n int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	page := os.Getpagesize()
	n = (n + page - 1) &^ (page - 1)
	if n > len(a.free) && !a.grow(n) {
		return nil
	}
	b := a.free[:n:n]
	a.free = a.free[n:]
	if n <= populate {
		_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) // an old kernel does not know how
	}
	return b
}

// grow maps more of the file.
func (a *Arena) grow(n int) bool {
	size := max(n, chunk)
	if a.file.Reserve(a.size+int64(size)) != nil {
		return false
	}
	fd := int(a.file.File().Fd())
	if unix.Fallocate(fd, 0, a.size, int64(size)) != nil {
		return false
	}
	b, err := unix.Mmap(fd, a.size, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return false
	}
	a.size += int64(size)
	a.free, a.chunks = b, append(a.chunks, b)
	return true
}

// Check drops what is in the arena if the process has more memory than Limit: the kernel
// keeps it where it wants, and it stays valid. If that helps little it is not done again
// before there is more.
func (a *Arena) Check() { a.check() }

// check is Check, and returns how much memory the process had.
func (a *Arena) check() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	used := a.resident()
	if used <= max(a.Limit, a.floor+least) {
		return used
	}
	for _, b := range a.chunks {
		_ = unix.Madvise(b, unix.MADV_DONTNEED) // of a shared file: the pages stay with it
	}
	if a.floor = a.resident(); a.floor > max(a.Limit/2, a.freed+garbage) {
		debug.FreeOSMemory() // the collector may be behind, on a busy machine
		a.floor = a.resident()
		a.freed = a.floor
	}
	return used
}

// Keep calls Check until ctx ends.
func (a *Arena) Keep(ctx context.Context) {
	wait := often
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if wait = seldom; a.check() > a.Limit/2 {
			wait = often
		}
	}
}

// resident returns how much memory the process has, 0 if that is not known.
func (a *Arena) resident() int64 {
	var text [128]byte
	n, _ := a.statm.ReadAt(text[:], 0)
	_, rest, _ := bytes.Cut(text[:n], []byte(" "))
	pages, _, _ := bytes.Cut(rest, []byte(" "))
	count := int64(0)
	for _, digit := range pages {
		count = 10*count + int64(digit-'0')
	}
	return count * int64(os.Getpagesize())
}
