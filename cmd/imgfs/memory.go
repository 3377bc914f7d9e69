package main

import (
	"os"
	"runtime/debug"

	"github.com/imgfs/imgfs/fs"
)

// What the runtime may take before it collects garbage more often than when
// the heap has doubled: enough for indexing and for decoded spans, and on top
// of that for what is made of each entry while layers are merged. An image
// with windows of 128 MiB needs more, and gets it.
const (
	baseMemory  = 120 << 20
	entryMemory = 160
)

// limitMemory keeps the process small, unless the user has set GOMEMLIMIT.
func limitMemory(layers []*fs.OpenLayer) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := int64(baseMemory)
	for _, l := range layers {
		limit += entryMemory * int64(l.Index.NumEntries())
	}
	debug.SetMemoryLimit(limit)
}
