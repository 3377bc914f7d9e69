// Package meta keeps manifests and configs in a cache directory, what references
// resolved to last, which images were used, and how blobs were verified.
package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A Cache is the manifests, configs and references of a cache directory. It is
// safe for concurrent use.
type Cache struct {
	dir   *directory.Dir
	count struct{ requests, fetched atomic.Int64 }

	mu      sync.Mutex
	missing map[string]time.Time // see KeepMissing
}

// New returns the metadata of a directory.
func New(d *directory.Dir) *Cache { return &Cache{dir: d} }

// A ref is what the cache remembers of a reference.
// docs/cache-format.md, "References".
type ref struct {
	Name       string             `json:"name"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Seen       time.Time          `json:"seen"`
}

func refPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return path.Join(directory.Refs, hex.EncodeToString(sum[:])+".json")
}

// keptRef returns what name resolved to last.
func (c *Cache) keptRef(name string) (ref, bool) {
	data, _, err := c.dir.Files().ReadFile(refPath(name), directory.MaxRecord)
	if err != nil {
		return ref{}, false
	}
	var r ref
	if json.Unmarshal(data, &r) != nil || r.Name != name || r.Descriptor.Digest.Validate() != nil {
		return ref{}, false
	}
	return r, true
}

func (c *Cache) keepRef(name string, desc ocispec.Descriptor) {
	data, err := json.Marshal(ref{name, desc, time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		c.dir.KeepFile(refPath(name), append(data, '\n'))
	}
}

// Reference returns what a name led to when KeepReference was called last. A name is
// that of an image, or of something else that lies in a registry under a tag.
func (c *Cache) Reference(name string) (ocispec.Descriptor, bool) {
	r, ok := c.keptRef(name)
	return r.Descriptor, ok
}

// KeepReference remembers what a name leads to.
func (c *Cache) KeepReference(name string, desc ocispec.Descriptor) { c.keepRef(name, desc) }

// ForgetReference forgets what a name led to.
func (c *Cache) ForgetReference(name string) {
	if c.dir.ReadOnly() == nil {
		_ = c.dir.Files().Remove(refPath(name)) // else it is asked for again all the same
	}
}

// maxMissing is how many names are remembered not to be there.
const maxMissing = 1 << 14

// KeepMissing remembers for a while that there is nothing under a name. Only this Cache
// knows that: what is missing here may be there for another process.
func (c *Cache) KeepMissing(name string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.missing == nil || len(c.missing) >= maxMissing {
		c.missing = make(map[string]time.Time)
	}
	c.missing[name] = time.Now().Add(d)
}

// IsMissing reports whether KeepMissing says that there is nothing under a name.
func (c *Cache) IsMissing(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.missing[name])
}

// describe makes the descriptor of a manifest or image index on disk.
func (c *Cache) describe(d digest.Digest) (ocispec.Descriptor, bool) {
	data, ok := c.KeptMeta(d)
	if !ok {
		return ocispec.Descriptor{}, false
	}
	var body struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(data, &body) != nil {
		return ocispec.Descriptor{}, false
	}
	// OCI image-spec, manifest.md and image-index.md: mediaType may be
	// missing, in what is then never one of Docker's.
	switch {
	case body.MediaType != "":
	case body.Manifests != nil:
		body.MediaType = ocispec.MediaTypeImageIndex
	case body.Layers != nil:
		body.MediaType = ocispec.MediaTypeImageManifest
	default:
		return ocispec.Descriptor{}, false
	}
	return ocispec.Descriptor{MediaType: body.MediaType, Digest: d, Size: int64(len(data))}, true
}

// Counts are the counters of a Cache since it was made: see Stats of
// package cache.
type Counts struct{ Requests, Fetched int64 }

// Counts returns the counters as they are now.
func (c *Cache) Counts() Counts {
	return Counts{c.count.requests.Load(), c.count.fetched.Load()}
}
