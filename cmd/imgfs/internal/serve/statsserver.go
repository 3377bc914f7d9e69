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
	image   *image.Image
	servers *Servers

	mu       sync.Mutex
	prefetch PrefetchState
	paths    []fusefs.FastPath
}

func newStatsServer(m *Mount) *statsServer {
	img := m.Image.Resolved()
	return &statsServer{
		about: Stats{
			Image: img.Name(), Manifest: img.Descriptor.Digest, Platform: platformText(img.Platform), Dir: m.Target.Dir(),
			CacheDir: img.Cache().Dir(), PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second), Offline: m.Offline,
		},
		cache: img.Cache(), image: m.Image, servers: m.Servers, prefetch: PrefetchState{State: "off"}, paths: []fusefs.FastPath{},
	}
}

// control is for fusefs.Options.Control.
func (s *statsServer) control(name string) ([]byte, bool) {
	if name != StatsAttr {
		return nil, false
	}
	return s.stats().encode(MaxStats), true
}

// serving notes which fast paths the mount has.
func (s *statsServer) serving(paths []fusefs.FastPath) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = paths
}

// prefetching notes how far prefetching is.
func (s *statsServer) prefetching(p PrefetchState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefetch = p
}

// stats returns the stats of now.
func (s *statsServer) stats() Stats {
	now := s.about
	s.mu.Lock()
	now.Prefetch, now.FastPaths = s.prefetch, s.paths
	s.mu.Unlock()
	now.count(s.image.Stats())
	now.Servers, now.Goroutines = s.servers.states(), runtime.NumGoroutine()
	line := s.cache.Blobs.Line()
	now.Line = LineState{line.Trip.Seconds(), math.Round(line.Rate)}
	cached := s.cache.Stats()
	now.Total.Meta = cached.MetaFetched
	now.Temporary = cached.Temporary
	return now
}
