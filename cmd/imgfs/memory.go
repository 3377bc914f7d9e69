package main

import (
	"os"
	"runtime/debug"

	"github.com/imgfs/imgfs/fs/image"
	"golang.org/x/sys/unix"
)

// What the runtime may take before it collects garbage more often than when
// the heap has doubled: enough for indexing and for decoded spans, and on top
// of that for what is made of each entry while layers are merged. An image
// with windows of 128 MiB needs more, and gets it.
const (
	baseMemory  = 120 << 20
	entryMemory = 160
)

// limitMemory keeps the process small, unless the user has set GOMEMLIMIT, while
// an image takes used bytes for names and attributes.
func limitMemory(used int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(baseMemory + used)
	}
}

// raiseMemory is limitMemory, if the limit is lower.
func raiseMemory(used int64) {
	if debug.SetMemoryLimit(-1) < baseMemory+used {
		limitMemory(used)
	}
}

// mergeMemory is what merging layers takes at most, if their names and
// attributes may take so many bytes; 0 for any.
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

// noCoreFiles keeps this process, and those that it starts, from leaving core
// files: passwords and tokens are in its memory.
func noCoreFiles() {
	// Less is always allowed, and where it is not the files are the user's own.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
