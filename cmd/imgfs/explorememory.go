package main

import (
	"context"
	"os"
	"runtime/debug"
	"sync/atomic"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/spill"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache"
)

const (
	// exploreEntries is how many entries images may have whose trees explore has on its
	// heap. Those of larger ones are in a file in the cache directory.
	exploreEntries = 150_000
	// exploreResident is how much memory the process may have then before what is mapped of
	// that file is given back, and exploreHeap the heap before garbage is collected more
	// often: with what both grow by meanwhile it is less than 100 MB.
	exploreResident = 76 << 20
	exploreHeap     = 32 << 20
	// exploreSpans is what decoded pieces of layers take: one reader reads one file.
	exploreSpans = 8 << 20
)

// An exploreMemory keeps explore small, whatever the size of images.
type exploreMemory struct {
	ctx     context.Context
	disk    *cache.Cache
	file    *cache.TempFile
	entries int
	arena   atomic.Pointer[spill.Arena] // nil: images are small so far
}

// begin has files in the cache directory, within its budget, until ctx ends.
func (m *exploreMemory) begin(ctx context.Context, disk *cache.Cache) { m.ctx, m.disk = ctx, disk }

// close gives back the room that the file took.
func (m *exploreMemory) close() {
	if m.file != nil {
		m.file.Close()
	}
}

// adjust sets where trees are.
func (m *exploreMemory) adjust(opts *image.Options) {
	opts.SpanMemory = exploreSpans
	opts.Room = m
}

// Alloc implements fs.Room.
func (m *exploreMemory) Alloc(n int) []byte {
	if a := m.arena.Load(); a != nil {
		return a.Alloc(n)
	}
	return nil
}

// Check implements fs.Room.
func (m *exploreMemory) Check() {
	if a := m.arena.Load(); a != nil {
		a.Check()
	}
}

// limit is called before the layers of an image are merged.
func (m *exploreMemory) limit(layers *image.Layers) {
	for _, l := range layers.All() {
		m.entries += l.Index.NumEntries()
	}
	if m.entries <= exploreEntries {
		return
	}
	if m.arena.Load() == nil {
		file, err := m.disk.NewTempFile(nil)
		var a *spill.Arena
		if err == nil {
			m.file = file
			a, err = spill.New(file, exploreResident)
		}
		if err != nil {
			limitMemory(2 * entryMemory * int64(m.entries))
			return // it is larger then
		}
		m.arena.Store(a)
		go a.Keep(m.ctx)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(exploreHeap)
	}
}
