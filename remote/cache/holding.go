package cache

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Holding is what the directory has of one blob.
type Holding struct {
	Digest   digest.Digest
	Size     int64     // of the blob; 0 if not known
	Cached   int64     // bytes of it that are there
	Index    int64     // bytes of its index file
	Used     time.Time // any of it, to about ten seconds; zero if it is not there
	Verified Verification
}

// Holding returns what the directory has of a blob.
func (c *blobCache) Holding(d digest.Digest) Holding {
	h := Holding{Digest: d}
	if d.Validate() != nil {
		return h
	}
	h.Verified = c.Verification(d)
	if st, err := c.dir.Files().Stat(c.dir.name(indexesDir, d)); err == nil && isRegular(st) {
		h.Index, h.Used = st.Size, time.Unix(st.Mtim.Unix())
	}
	f, err := c.dir.Files().Open(c.dir.name(blobsDir, d))
	if err != nil {
		return h
	}
	defer f.Close()
	l, epoch, ok := readFooter(f)
	if !ok || epoch == 0 {
		return h
	}
	h.Size = l.size
	if l.chunks() > maxWords {
		return h
	}
	var last uint32
	future := time.Now().Add(futureTime).Unix()
	for k, w := range l.words(f, 0, l.chunks()) {
		if w == 0 {
			continue
		}
		off, end := l.bounds(int64(k))
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
func (c *blobCache) Holdings() ([]Holding, error) {
	inv, err := c.dir.walk()
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	var digests []digest.Digest
	for _, f := range inv.files {
		if d, ok := digestOf(f.name); ok && (f.kind == kindBlob || f.kind == kindIndex) {
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
