package serve

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/opencontainers/go-digest"
)

const (
	// StatsAttr is the extended attribute of a mount's root that its stats are in.
	// It is not listed.
	StatsAttr = "user.imgfs.stats"
	// MaxStats is how long the kernel lets an attribute's value be.
	MaxStats = 64 << 10
)

// Stats are the statistics of a mount: the value of StatsAttr, and the document that
// imgfs stats --json prints. Sizes are in bytes.
type Stats struct {
	Image      string         `json:"image"`
	ImageBytes show.NameBytes `json:"imageBytes,omitempty"` // see show.Marshal
	// Opening says that the image is not open yet, as with imgfs mount --no-wait: what
	// depends on it is empty.
	Opening       bool           `json:"opening"`
	Manifest      digest.Digest  `json:"manifest"` // of the platform
	Platform      string         `json:"platform"`
	Dir           string         `json:"dir"`
	DirBytes      show.NameBytes `json:"dirBytes,omitempty"`
	CacheDir      string         `json:"cacheDir"`
	CacheDirBytes show.NameBytes `json:"cacheDirBytes,omitempty"`
	PID           int            `json:"pid"` // of the process that serves the mount
	Since         time.Time      `json:"since"`
	Offline       bool           `json:"offline"`
	// Recovery says whether the mount outlives that process.
	Recovery RecoveryState `json:"recovery"`
	Prefetch PrefetchState `json:"prefetch"`
	// Profile says what was fetched because it was expected to be read.
	Profile image.ForecastStats `json:"profile"`
	// Servers are those that were sent a request, those first that are down.
	Servers []ServerState `json:"servers"`
	// Line is the measured speed of all of them.
	Line       LineState `json:"line"`
	Goroutines int       `json:"goroutines"` // of the process that serves the mount
	// FastPaths are ways to serve that depend on the kernel and the user.
	FastPaths []fusefs.FastPath `json:"fastPaths"`
	// Contents are about kept files.
	Contents image.KeptStats `json:"contents"`
	// Temporary is how many bytes are in temporary files now. These have no name
	// and count in --cache-size.
	Temporary int64        `json:"temporary"`
	Total     TotalStats   `json:"total"`
	Layers    []LayerStats `json:"layers"` // the base first
	// OfLayers is how many layers the image has, if only the lowest are mounted.
	OfLayers int `json:"ofLayers,omitempty"`
	// Files are those for which most bytes were fetched.
	Files []FileCost `json:"files"`
	// OmittedLayers and OmittedFiles say how many were left out, to fit MaxStats.
	OmittedLayers int `json:"omittedLayers,omitempty"`
	OmittedFiles  int `json:"omittedFiles,omitempty"`
}

// traffic are the counters of a layer, or of all.
type traffic struct {
	Asked    int64 `json:"asked"`    // bytes of files that readers asked for
	Indexed  int64 `json:"indexed"`  // bytes that came to index it; not in Fetched
	Fetched  int64 `json:"fetched"`  // bytes that came for them
	Wasted   int64 `json:"wasted"`   // bytes of these that nobody has read yet, or that were of no use
	Requests int64 `json:"requests"` // that these took
	Hits     int64 `json:"hits"`     // bytes of the compressed layer that came from the cache
	Bad      int64 `json:"bad"`      // chunks that were wrong and not used
	Errors   int64 `json:"errors"`   // reads that failed
}

// reads say how many reads of files there were, and how long they took.
type reads struct {
	Reads int64 `json:"reads"`
	// Waits are the reads that had to wait: half of them up to WaitP50, all
	// but a hundredth up to WaitP99.
	Waits   int64   `json:"waits"`
	WaitP50 float64 `json:"waitP50Seconds"`
	WaitP99 float64 `json:"waitP99Seconds"`
}

// TotalStats are about all layers of a mount.
type TotalStats struct {
	traffic
	reads
	// Meta are bytes of manifests and configs that came. They are not in Fetched.
	Meta int64 `json:"meta"`
}

// LayerStats are about one layer of a mount.
type LayerStats struct {
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`     // compressed
	Cached   int64         `json:"cached"`   // bytes of it on disk, as far as this mount knows
	Verified string        `json:"verified"` // as cache.Verification has it
	// Index says which index the layer is read by, and what vouches for it.
	Index image.IndexUse `json:"index"`
	traffic
	reads
}

// A FileCost says how many bytes of a file were asked for, and how many were
// fetched for that.
type FileCost struct {
	Path      string         `json:"path"`
	PathBytes show.NameBytes `json:"pathBytes,omitempty"`
	Asked     int64          `json:"asked"`
	Fetched   int64          `json:"fetched"`
}

// A ServerState says whether a registry answers, or a server that one sends its
// readers to.
type ServerState struct {
	Host   string    `json:"host"`
	Down   bool      `json:"down"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // if it is down
}

// A LineState says how fast registries answer; 0 is not known.
type LineState struct {
	Trip float64 `json:"tripSeconds"`    // from a request to its first byte
	Rate float64 `json:"bytesPerSecond"` // of all requests together, while any is answered
}

// A PrefetchState says how many bytes imgfs mount --prefetch has brought.
type PrefetchState struct {
	State string `json:"state"` // "off", "running", "done" or "failed"
	Have  int64  `json:"have"`
	All   int64  `json:"all"`
}

// count takes over the counters of an image. A layer that the image has twice is
// one blob, and counts once in the total.
func (s *Stats) count(n image.Stats) {
	total := TotalStats{reads: reads{n.Reads, n.Waits, n.WaitP50.Seconds(), n.WaitP99.Seconds()}}
	s.Layers = make([]LayerStats, len(n.Layers))
	seen := make(map[digest.Digest]bool)
	for i, l := range n.Layers {
		b := l.Blob
		row := traffic{Asked: l.Asked, Indexed: l.Indexed, Fetched: b.Fetched, Wasted: b.Wasted, Requests: b.Requests, Hits: b.Hits, Bad: b.Bad, Errors: b.Errors}
		s.Layers[i] = LayerStats{l.Digest, l.Size, b.Present, l.Verified.String(), l.Index, row,
			reads{l.Reads, l.Waits, l.WaitP50.Seconds(), l.WaitP99.Seconds()}}
		if !seen[l.Digest] {
			seen[l.Digest] = true
			total.Indexed += row.Indexed
			total.Fetched += row.Fetched
			total.Wasted += row.Wasted
			total.Requests += row.Requests
			total.Hits += row.Hits
			total.Bad += row.Bad
		}
	}
	total.Asked, total.Errors = n.Asked, n.Errors
	s.Contents = n.Contents
	s.Total, s.Files = total, make([]FileCost, len(n.Files))
	for i, f := range n.Files {
		s.Files[i] = FileCost{Path: f.Path, Asked: f.Asked, Fetched: f.Fetched}
	}
}

// encode returns the stats as JSON of at most limit bytes, with rows left out
// if need be.
func (s Stats) encode(limit int) []byte {
	for {
		text, err := show.Marshal(s)
		if err != nil || len(text) <= limit || !s.shrink() {
			return text // there is nothing in it that has no JSON
		}
	}
}

// shrink leaves something out, the least interesting first, and reports whether
// anything was left to leave out. It changes the lists of s in place.
func (s *Stats) shrink() bool {
	const someFiles, longPath = 5, 200
	isLong := func(f FileCost) bool { return len(f.Path) > longPath }
	isIdle := func(l LayerStats) bool { return l.traffic == traffic{Indexed: l.Indexed} }
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

func (s *Stats) dropFile() {
	s.Files = s.Files[:len(s.Files)-1]
	s.OmittedFiles++
}
