package serve

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// BaseMemory is how many bytes the runtime may always take before it collects garbage
	// more often than when the heap has doubled: enough for indexing, and for decoded spans,
	// which come and go.
	BaseMemory = 120 << 20
	// garbageMemory is how much more than what it needs a server may take.
	garbageMemory = 24 << 20
)

// settleMemory gives back what only mounting needed, and keeps the process near what is
// left, unless the user has set GOMEMLIMIT: the tree of a big image stays in memory as long
// as it is served, and the heap would double before garbage is collected.
func settleMemory() {
	debug.FreeOSMemory()
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	used := int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
	if limit := max(used+garbageMemory, BaseMemory); limit < debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(limit)
	}
}
