package main

import (
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/opencontainers/go-digest"
)

const (
	// statsAttr is the attribute of a mount's root that its stats are in. It
	// is not listed.
	statsAttr = "user.imgfs.stats"
	// maxStats is what the kernel takes for an attribute's value.
	maxStats = 64 << 10
)

// A mountStats is what a mount tells of itself: the value of statsAttr, and
// what imgfs stats --json prints. Sizes are in bytes.
type mountStats struct {
	Image         string         `json:"image"`
	ImageBytes    show.NameBytes `json:"imageBytes,omitempty"` // see show.Marshal
	Manifest      digest.Digest  `json:"manifest"`             // of the platform
	Platform      string         `json:"platform"`
	Dir           string         `json:"dir"`
	DirBytes      show.NameBytes `json:"dirBytes,omitempty"`
	CacheDir      string         `json:"cacheDir"`
	CacheDirBytes show.NameBytes `json:"cacheDirBytes,omitempty"`
	PID           int            `json:"pid"` // of the process that serves the mount
	Since         time.Time      `json:"since"`
	Offline       bool           `json:"offline"`
	Prefetch      prefetchState  `json:"prefetch"`
	// Servers are those that were asked something, those first that are down.
	Servers []serverState `json:"servers"`
	// Line is what was measured of the way to them all.
	Line       lineState `json:"line"`
	Goroutines int       `json:"goroutines"` // of the process that serves the mount
	// FastPaths are the ways to serve that not every kernel and user has.
	FastPaths []fusefs.FastPath `json:"fastPaths"`
	// Contents are files that are in the cache as such, besides the layers.
	Contents image.ContentStats `json:"contents"`
	// Temporary is how many bytes are in temporary files now, which have no
	// name and count in --cache-size.
	Temporary int64        `json:"temporary"`
	Total     totalStats   `json:"total"`
	Layers    []layerStats `json:"layers"` // the base first
	// Files are those that had the most bytes fetched for them.
	Files []fileCost `json:"files"`
	// OmittedLayers and OmittedFiles were left out, for their number.
	OmittedLayers int `json:"omittedLayers,omitempty"`
	OmittedFiles  int `json:"omittedFiles,omitempty"`
}

// traffic is what is counted of every layer, and of all.
type traffic struct {
	Asked    int64 `json:"asked"`    // bytes of files that readers asked for
	Fetched  int64 `json:"fetched"`  // bytes that the registry gave for them
	Wasted   int64 `json:"wasted"`   // bytes of these that nobody has read yet
	Requests int64 `json:"requests"` // that these took
	Hits     int64 `json:"hits"`     // bytes of the compressed layer that came from the cache
	Bad      int64 `json:"bad"`      // chunks that were wrong and not used
	Errors   int64 `json:"errors"`   // reads that failed
}

// reads is how many reads of files there were, and how long they took.
type reads struct {
	Reads int64 `json:"reads"`
	// Waits are the reads that had to wait: half of them up to WaitP50, all
	// but a hundredth up to WaitP99.
	Waits   int64   `json:"waits"`
	WaitP50 float64 `json:"waitP50Seconds"`
	WaitP99 float64 `json:"waitP99Seconds"`
}

// A totalStats is about all layers of a mount.
type totalStats struct {
	traffic
	reads
	// Indexed are bytes of layers read to index them, and Meta bytes of
	// manifests and configs fetched. Neither is in Fetched.
	Indexed int64 `json:"indexed"`
	Meta    int64 `json:"meta"`
}

// A layerStats is about one layer of a mount.
type layerStats struct {
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`     // compressed
	Cached   int64         `json:"cached"`   // bytes of it on disk, as far as this mount knows
	Verified string        `json:"verified"` // as cache.Verification has it
	traffic
	reads
}

// A fileCost is an image.FileCost.
type fileCost struct {
	Path      string         `json:"path"`
	PathBytes show.NameBytes `json:"pathBytes,omitempty"`
	Asked     int64          `json:"asked"`
	Fetched   int64          `json:"fetched"`
}

// A serverState tells whether a registry, or a server that one sends its
// readers to, answers.
type serverState struct {
	Host   string    `json:"host"`
	Down   bool      `json:"down"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // if it is down
}

// A lineState tells how fast registries answer; 0 is not known.
type lineState struct {
	Trip float64 `json:"tripSeconds"`    // from a request to its first byte
	Rate float64 `json:"bytesPerSecond"` // of all requests together, while any is answered
}

// A prefetchState tells how far imgfs mount --prefetch is.
type prefetchState struct {
	State string `json:"state"` // "off", "running", "done" or "failed"
	Have  int64  `json:"have"`
	All   int64  `json:"all"`
}

// A teller makes the stats of a mount that is served by this process.
type teller struct {
	about mountStats // what does not change
	cache *cache.Cache
	tree  *image.Image
	net   *network

	mu       sync.Mutex
	prefetch prefetchState
	paths    []fusefs.FastPath
}

func newTeller(e *env, img *remote.Image, t *image.Image, dir string, disk *cache.Cache) *teller {
	return &teller{
		about: mountStats{
			Image: img.Source.Name(), Manifest: img.Descriptor.Digest, Platform: platformText(img.Platform), Dir: dir,
			CacheDir: disk.Dir(), PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second), Offline: e.offline,
		},
		cache: disk, tree: t, net: &e.network, prefetch: prefetchState{State: "off"}, paths: []fusefs.FastPath{},
	}
}

// control is for fusefs.Options.Control.
func (t *teller) control(name string) ([]byte, bool) {
	if name != statsAttr {
		return nil, false
	}
	return t.stats().encode(maxStats), true
}

// serving notes how the mount is served.
func (t *teller) serving(paths []fusefs.FastPath) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paths = paths
}

// prefetching notes how far prefetching is.
func (t *teller) prefetching(state string, f filling) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prefetch = prefetchState{state, f.have, f.all}
}

// stats returns what there is to tell now.
func (t *teller) stats() mountStats {
	s := t.about
	t.mu.Lock()
	s.Prefetch, s.FastPaths = t.prefetch, t.paths
	t.mu.Unlock()
	s.count(t.tree.Stats())
	s.Servers, s.Goroutines = t.net.servers(), runtime.NumGoroutine()
	line := t.cache.Line()
	s.Line = lineState{line.Trip.Seconds(), math.Round(line.Rate)}
	cached := t.cache.Stats()
	s.Total.Indexed, s.Total.Meta = cached.Recorded, cached.MetaFetched
	s.Temporary = cached.Temporary
	return s
}

// count takes over the counters of a tree. A layer that the image has twice
// is one blob, and counts once in all.
func (s *mountStats) count(n image.Stats) {
	total := totalStats{reads: reads{n.Reads, n.Waits, n.WaitP50.Seconds(), n.WaitP99.Seconds()}}
	s.Layers = make([]layerStats, len(n.Layers))
	seen := make(map[digest.Digest]bool)
	for i, l := range n.Layers {
		b := l.Blob
		row := traffic{Asked: l.Asked, Fetched: b.Fetched, Wasted: b.Wasted, Requests: b.Requests, Hits: b.Hits, Bad: b.Bad, Errors: b.Errors}
		s.Layers[i] = layerStats{l.Digest, l.Size, b.Present, l.Verified.String(), row,
			reads{l.Reads, l.Waits, l.WaitP50.Seconds(), l.WaitP99.Seconds()}}
		if !seen[l.Digest] {
			seen[l.Digest] = true
			total.Fetched += row.Fetched
			total.Wasted += row.Wasted
			total.Requests += row.Requests
			total.Hits += row.Hits
			total.Bad += row.Bad
		}
	}
	total.Asked, total.Errors = n.Asked, n.Errors
	s.Contents = n.Contents
	s.Total, s.Files = total, make([]fileCost, len(n.Files))
	for i, f := range n.Files {
		s.Files[i] = fileCost{Path: f.Path, Asked: f.Asked, Fetched: f.Fetched}
	}
}

// encode returns the stats as JSON of at most limit bytes, with rows left out
// if need be.
func (s mountStats) encode(limit int) []byte {
	for {
		text, err := show.Marshal(s)
		if err != nil || len(text) <= limit || !s.shrink() {
			return text // there is nothing in it that has no JSON
		}
	}
}

// shrink leaves something out, what tells least first, and reports whether
// there was something. It changes the lists of s in place.
func (s *mountStats) shrink() bool {
	const someFiles, longPath = 5, 200
	isLong := func(f fileCost) bool { return len(f.Path) > longPath }
	isIdle := func(l layerStats) bool { return l.traffic == traffic{} }
	switch {
	case len(s.Files) > someFiles:
		s.dropFile()
	case slices.ContainsFunc(s.Files, isLong):
		for i, f := range s.Files {
			if isLong(f) {
				tail := f.Path[len(f.Path)-longPath+len("..."):]
				for len(tail) > longPath-2*utf8.UTFMax && !utf8.RuneStart(tail[0]) {
					tail = tail[1:]
				}
				s.Files[i].Path = "..." + tail
			}
		}
	case slices.ContainsFunc(s.Layers, isIdle):
		n := len(s.Layers)
		s.Layers = slices.DeleteFunc(s.Layers, isIdle)
		s.OmittedLayers += n - len(s.Layers)
	case len(s.Files) > 0:
		s.dropFile()
	case len(s.Layers) > 0:
		keep := len(s.Layers) / 2
		s.OmittedLayers += len(s.Layers) - keep
		s.Layers = s.Layers[:keep]
	default:
		return false
	}
	return true
}

func (s *mountStats) dropFile() {
	s.Files = s.Files[:len(s.Files)-1]
	s.OmittedFiles++
}
