package serve

import (
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache"
)

// A statsServer answers for the stats of a mount that this process serves.
type statsServer struct {
	about   Stats // the fields that do not change
	cache   *cache.Cache
	tree    *image.Image
	servers *Servers

	mu       sync.Mutex
	prefetch PrefetchState
	paths    []fusefs.FastPath
}

func newStatsServer(m *Mount) *statsServer {
	return &statsServer{
		about: Stats{
			Image: m.Image.Source.Name(), Manifest: m.Image.Descriptor.Digest, Platform: platformText(m.Image.Platform), Dir: m.Target.Dir(),
			CacheDir: m.Cache.Dir(), PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second), Offline: m.Offline,
		},
		cache: m.Cache, tree: m.Tree, servers: m.Servers, prefetch: PrefetchState{State: "off"}, paths: []fusefs.FastPath{},
	}
}

// control is for fusefs.Options.Control.
func (t *statsServer) control(name string) ([]byte, bool) {
	if name != StatsAttr {
		return nil, false
	}
	return t.stats().encode(MaxStats), true
}

// serving notes which fast paths the mount has.
func (t *statsServer) serving(paths []fusefs.FastPath) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paths = paths
}

// prefetching notes how far prefetching is.
func (t *statsServer) prefetching(p PrefetchState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prefetch = p
}

// stats returns the stats of now.
func (t *statsServer) stats() Stats {
	s := t.about
	t.mu.Lock()
	s.Prefetch, s.FastPaths = t.prefetch, t.paths
	t.mu.Unlock()
	s.count(t.tree.Stats())
	s.Servers, s.Goroutines = t.servers.states(), runtime.NumGoroutine()
	line := t.cache.Line()
	s.Line = LineState{line.Trip.Seconds(), math.Round(line.Rate)}
	cached := t.cache.Stats()
	s.Total.Indexed, s.Total.Meta = cached.Recorded, cached.MetaFetched
	s.Temporary = cached.Temporary
	return s
}
