package blobs

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// A Holding is what the directory has of one blob.
type Holding struct {
	Digest digest.Digest
	Size   int64 // of the blob; 0 if not known
	// Cached is how many bytes of it are there, in all of its files. What two have counts
	// twice.
	Cached int64
	Index  int64     // bytes of its index files
	Used   time.Time // any of it, to about ten seconds; zero if it is not there
	// Verified is how it was checked: by the index made here, or else by another, the
	// one that says most.
	Verified meta.Verification
	// Cuts are its files by other cuts than chunks of one size, in the order of their
	// keys.
	Cuts []CutsHolding
}

// A CutsHolding is a blob file by cuts that are no chunks of one size.
type CutsHolding struct {
	Key      string // the first 16 hex digits of the sum of the cuts
	Cached   int64  // bytes that are there
	Verified meta.Verification
}

// Holding returns what the directory has of a blob.
func (c *Cache) Holding(d digest.Digest) Holding {
	if d.Validate() != nil {
		return Holding{Digest: d}
	}
	var names []string
	for _, dir := range []string{directory.Blobs, directory.Indexes} {
		// What cannot be read counts as missing.
		_ = c.dir.Files().Walk(path.Dir(c.dir.Name(dir, d)), func(name string, st *unix.Stat_t) bool {
			if of, ok := directory.DigestOf(name); ok && of == d && directory.IsRegular(st) {
				names = append(names, name)
			}
			return path.Base(name) == string(d.Algorithm())
		}, func(string, error) {})
	}
	return c.holding(d, names)
}

// holding is Holding for a blob whose files have these names.
func (c *Cache) holding(d digest.Digest, names []string) Holding {
	h := Holding{Digest: d, Verified: c.Verification(d)}
	slices.Sort(names)
	for _, name := range names {
		key := directory.KeyOf(name)
		switch directory.KindOf(name) {
		case directory.KindIndex:
			if st, err := c.dir.Files().Stat(name); err == nil && directory.IsRegular(st) {
				h.Index += st.Size
				h.use(time.Unix(st.Mtim.Unix()))
			}
		case directory.KindBlob:
			n := c.held(name, &h)
			h.Cached += n
			if key != "" {
				h.Cuts = append(h.Cuts, CutsHolding{key, n, c.meta.Mark(d, key).Verification})
			}
		}
	}
	if h.Verified == meta.VerifiedNot && len(h.Cuts) > 0 {
		h.Verified = slices.MaxFunc(h.Cuts, func(a, b CutsHolding) int { return int(a.Verified - b.Verified) }).Verified
	}
	return h
}

// use notes when something of the blob was used.
func (h *Holding) use(at time.Time) {
	if at.After(h.Used) {
		h.Used = at
	}
}

// held returns how many bytes are in a blob file, and notes its size and its last use.
func (c *Cache) held(name string, h *Holding) int64 {
	f, err := c.dir.Files().Open(name)
	if err != nil {
		return 0
	}
	defer f.Close()
	l, epoch, ok := blobfile.ReadFooter(f)
	if !ok || epoch == 0 {
		return 0
	}
	h.Size = l.Size
	if l.Chunks() > directory.MaxWords {
		return 0
	}
	var n blobfile.Count
	var last uint32
	future := time.Now().Add(directory.FutureTime).Unix()
	for k, w := range l.Words(f, 0, l.Chunks()) {
		if w == 0 {
			continue
		}
		n.Add(l, int64(k))
		if int64(w) <= future {
			last = max(last, w)
		}
	}
	if last > 0 {
		h.use(time.Unix(int64(last), 0))
	}
	return n.Bytes
}

// Holdings returns what the directory has of every blob, in the order of their
// digests, whether or not an image is known that uses it.
func (c *Cache) Holdings() ([]Holding, error) {
	inv, err := c.dir.Walk()
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	names := map[digest.Digest][]string{}
	for _, f := range inv.Files {
		if d, ok := directory.DigestOf(f.Name); ok && (f.Kind == directory.KindBlob || f.Kind == directory.KindIndex) {
			names[d] = append(names[d], f.Name)
		}
	}
	var all []Holding
	for _, d := range slices.Sorted(maps.Keys(names)) {
		all = append(all, c.holding(d, names[d]))
	}
	return all, nil
}
