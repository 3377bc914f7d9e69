package blobs

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// Cuts says how a blob is cut into chunks, and what each must be. It never changes
// and is safe for concurrent use.
//
// Both the beginnings and the ends of the chunks rise. A chunk may begin one byte
// before the one before it ends: this byte both have. There may be gaps: what lies
// in them is never asked for. A chunk has 1 byte to 16 MiB, and there are at most
// 2^20. Offsets are in the blob.
//
// Chunks is Cuts of one size.
type Cuts interface {
	// Len returns how many chunks there are.
	Len() int64
	// Bounds returns where chunk k begins and ends.
	Bounds(k int64) (off, end int64)
	// Match reports whether data is chunk k. It may take long, and is called with no
	// lock held: once for what a request brought, and once a process for what is on
	// disk.
	Match(k int64, data []byte) bool
	// Sum names the cuts: those of a blob that have the same sum have the same
	// bounds, and match the same bytes.
	Sum() [sha256.Size]byte
}

// PartlyProved is Cuts of which some chunks match nothing, because nothing says what
// they must be. These count as gaps.
type PartlyProved interface {
	Cuts
	// Proved reports whether there are bytes that match chunk k.
	Proved(k int64) bool
}

// Chunks says how a blob is cut into chunks of one size and what each must be.
type Chunks struct {
	// Size is the length of each chunk but the last, which may be shorter:
	// a multiple of 4096, at most 16 MiB.
	Size int64
	// Sums holds the SHA-256 of each chunk, 32 bytes a chunk.
	Sums []byte
}

var _ Cuts = Chunks{}

// Len returns how many sums there are.
func (c Chunks) Len() int64 { return int64(len(c.Sums) / sha256.Size) }

// Bounds returns where chunk k begins and ends. The last one may end before that,
// with its blob.
func (c Chunks) Bounds(k int64) (off, end int64) { return k * c.Size, (k + 1) * c.Size }

// Match reports whether data has the sum of chunk k.
func (c Chunks) Match(k int64, data []byte) bool {
	sum := sha256.Sum256(data)
	return bytes.Equal(sum[:], c.Sums[k*sha256.Size:(k+1)*sha256.Size])
}

// Sum returns the SHA-256 of the sums.
func (c Chunks) Sum() [sha256.Size]byte { return sha256.Sum256(c.Sums) }

// layout checks the chunks against the blob that they should cut.
func (c Chunks) layout(d digest.Digest, size int64) (blobfile.Layout, error) {
	l := blobfile.Layout{Size: size, Chunk: c.Size}
	if !l.Valid() {
		return l, fmt.Errorf("blob %s: %d bytes in chunks of %d cannot be cached", d, size, c.Size)
	}
	if l.Chunks() != c.Len() || len(c.Sums)%sha256.Size != 0 {
		return l, fmt.Errorf("blob %s: %d bytes in chunks of %d need %d sums of 32 bytes; there are %d bytes of them",
			d, size, c.Size, l.Chunks(), len(c.Sums))
	}
	return l, nil
}

// Key returns what the names of files by these cuts have besides the digest: "" for
// Chunks, and else the first 16 hex digits of the sum.
func Key(cuts Cuts) string {
	if _, ok := cuts.(Chunks); ok {
		return ""
	}
	return directory.Key(cuts.Sum())
}

// A cutting is how a blob of some size is cut. Chunks that match nothing have no number in
// it.
type cutting struct {
	blobfile.Layout
	numbers []int32 // in the Cuts, by chunk; nil if they are the same
}

// cut checks the cuts against the blob that they should cut.
func cut(d digest.Digest, size int64, cuts Cuts) (cutting, error) {
	var x cutting
	var err error
	if chunks, ok := cuts.(Chunks); ok {
		x.Layout, err = chunks.layout(d, size)
		return x, err
	}
	n, bounds := cuts.Len(), cuts.Bounds
	if p, ok := cuts.(PartlyProved); ok && n <= blobfile.MaxCuts {
		x.numbers = []int32{}
		for k := range n {
			if p.Proved(k) {
				x.numbers = append(x.numbers, int32(k))
			}
		}
		n = int64(len(x.numbers))
		bounds = func(k int64) (off, end int64) { return cuts.Bounds(int64(x.numbers[k])) }
	}
	x.Size = size
	if x.Table, err = blobfile.NewTable(size, cuts.Sum(), n, bounds); err == nil && !x.Valid() {
		err = fmt.Errorf("%d bytes are too many", size)
	}
	if err != nil {
		return x, fmt.Errorf("blob %s: %w", d, err)
	}
	return x, nil
}

// match reports whether data is chunk k by cuts, which are cut like this.
func (x *cutting) match(cuts Cuts, k int64, data []byte) bool {
	if x.numbers != nil {
		k = int64(x.numbers[k])
	}
	return cuts.Match(k, data)
}

// total returns how many bytes there are to have.
func (x *cutting) total() int64 {
	if x.Table == nil {
		return x.Size
	}
	var n blobfile.Count
	for k := range x.Layout.Chunks() {
		n.Add(x.Layout, k)
	}
	return n.Bytes
}

// maxGap is how many bytes that nobody wants a request may bring between two chunks,
// so that it need not be two requests.
const maxGap = 16 << 10

// run returns the end of the neighbours from chunk k on, up to end, that one request
// of at most n bytes may bring; one chunk is always allowed.
func (x *cutting) run(k, end, n int64) int64 {
	if x.Table == nil {
		return min(end, k+max(1, n/x.Chunk))
	}
	off := x.Begin(k)
	for stop := k + 1; stop < end; stop++ {
		if _, to := x.Bounds(stop); x.Gap(stop) > maxGap || to-off > n {
			return stop
		}
	}
	return end
}

// covered returns how many of the n bytes from off are in chunks, up to the first that
// is not. All of them are in the blob.
func (x *cutting) covered(off, n int64) int64 {
	if x.Table == nil {
		return n
	}
	first, end := x.Span(off, off+n)
	at := off
	for k := first; k < end; k++ {
		begin, stop := x.Bounds(k)
		if begin > at {
			break
		}
		at = stop
	}
	return min(at-off, n)
}
