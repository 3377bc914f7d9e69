package serve

import (
	"math"
	"os"
	"runtime"
	"sync"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache"
)

// A statsServer answers for the stats of a mount that this process serves.
type statsServer struct {
	cache   *cache.Cache
	servers *Servers

	mu       sync.Mutex
	about    Stats        // the fields that do not change
	image    *image.Image // nil as long as it is not open
	prefetch PrefetchState
	paths    []fusefs.FastPath
	forecast *image.Forecast // nil: there is none
	keeper   *keeper
	srv      *fusefs.Server // nil: it begins to serve just now
}

func newStatsServer(m *Mount) *statsServer {
	s := &statsServer{
		about: Stats{
			Image: m.name(), Opening: true, Dir: m.dir(), CacheDir: m.Cache.Dir(),
			PID: os.Getpid(), Since: m.keeper.noted().Since, Offline: m.Offline,
		},
		cache: m.Cache, servers: m.Servers, prefetch: PrefetchState{State: "off"}, paths: []fusefs.FastPath{},
	}
	if m.Image != nil {
		s.opened(m)
	}
	return s
}

// opened notes that the image is open.
func (s *statsServer) opened(m *Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	img := m.Image.Resolved()
	s.image, s.about.Opening = m.Image, false
	s.about.Image, s.about.Manifest, s.about.Platform = m.name(), img.Descriptor.Digest, platformText(img.Platform)
	if all := img.NumLayers(); all > len(img.Layers) {
		s.about.OfLayers = all
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

// recovering notes what has the mount outlive this process.
func (s *statsServer) recovering(k *keeper, srv *fusefs.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeper, s.srv = k, srv
}

// prefetching notes how far prefetching is.
func (s *statsServer) prefetching(p PrefetchState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefetch = p
}

// stats returns the stats of now.
func (s *statsServer) stats() Stats {
	s.mu.Lock()
	now, img := s.about, s.image
	now.Prefetch, now.FastPaths = s.prefetch, s.paths
	keeper, srv, forecast := s.keeper, s.srv, s.forecast
	s.mu.Unlock()
	if forecast != nil {
		now.Profile = forecast.Stats()
	}
	if keeper != nil {
		now.Recovery = keeper.state()
	}
	if srv != nil {
		now.Recovery.Refused = srv.Refused()
	}
	if img != nil {
		now.count(img.Stats())
	} else {
		now.Layers, now.Files = []LayerStats{}, []FileCost{}
	}
	now.Servers, now.Goroutines = s.servers.states(), runtime.NumGoroutine()
	line := s.cache.Blobs.Line()
	now.Line = LineState{line.Trip.Seconds(), math.Round(line.Rate)}
	cached := s.cache.Stats()
	now.Total.Meta = cached.MetaFetched
	now.Temporary = cached.Temporary
	return now
}
