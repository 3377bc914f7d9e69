package blobs

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// A Holding is what the directory has of one blob.
type Holding struct {
	Digest   digest.Digest
	Size     int64     // of the blob; 0 if not known
	Cached   int64     // bytes of it that are there
	Index    int64     // bytes of its index file
	Used     time.Time // any of it, to about ten seconds; zero if it is not there
	Verified meta.Verification
}

// Holding returns what the directory has of a blob.
func (c *Cache) Holding(d digest.Digest) Holding {
	h := Holding{Digest: d}
	if d.Validate() != nil {
		return h
	}
	h.Verified = c.Verification(d)
	if st, err := c.dir.Files().Stat(c.dir.Name(directory.Indexes, d)); err == nil && directory.IsRegular(st) {
		h.Index, h.Used = st.Size, time.Unix(st.Mtim.Unix())
	}
	f, err := c.dir.Files().Open(c.dir.Name(directory.Blobs, d))
	if err != nil {
		return h
	}
	defer f.Close()
	l, epoch, ok := blobfile.ReadFooter(f)
	if !ok || epoch == 0 {
		return h
	}
	h.Size = l.Size
	if l.Chunks() > directory.MaxWords {
		return h
	}
	var last uint32
	future := time.Now().Add(directory.FutureTime).Unix()
	for k, w := range l.Words(f, 0, l.Chunks()) {
		if w == 0 {
			continue
		}
		off, end := l.Bounds(int64(k))
		h.Cached += end - off
		if int64(w) <= future {
			last = max(last, w)
		}
	}
	if used := time.Unix(int64(last), 0); last > 0 && used.After(h.Used) {
		h.Used = used
	}
	return h
}

// Holdings returns what the directory has of every blob, in the order of their
// digests, whether or not an image is known that uses it.
func (c *Cache) Holdings() ([]Holding, error) {
	inv, err := c.dir.Walk()
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	var digests []digest.Digest
	for _, f := range inv.Files {
		if d, ok := directory.DigestOf(f.Name); ok && (f.Kind == directory.KindBlob || f.Kind == directory.KindIndex) {
			digests = append(digests, d)
		}
	}
	slices.SortFunc(digests, cmp.Compare[digest.Digest])
	var all []Holding
	for _, d := range slices.Compact(digests) {
		all = append(all, c.Holding(d))
	}
	return all, nil
}
