package main

import (
	"os"
	"runtime/debug"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/image"
)

// entryMemory is how many bytes merging layers takes at most for each entry, besides
// [serve.BaseMemory]. An image with windows of 128 MiB needs more, and gets it.
const entryMemory = 160

// limitMemory keeps the process small, unless the user has set GOMEMLIMIT, while
// an image takes used bytes for names and attributes.
func limitMemory(used int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(serve.BaseMemory + used)
	}
}

// raiseMemory is limitMemory, but never lowers the limit.
func raiseMemory(used int64) {
	if debug.SetMemoryLimit(-1) < serve.BaseMemory+used {
		limitMemory(used)
	}
}

// mergeMemory returns how many bytes merging layers takes at most. allowed is how
// many bytes their names and attributes may take; 0 is any number.
func mergeMemory(layers []*image.Layer, allowed int64) int64 {
	n := int64(0)
	for _, l := range layers {
		n += entryMemory * int64(l.Index.NumEntries())
	}
	if allowed > 0 {
		n = min(n, allowed)
	}
	return n
}
