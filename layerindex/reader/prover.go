package reader

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"
	"sync/atomic"

	"github.com/imgfs/imgfs/layerindex"
)

// maxCut is the longest cut of a blob: a cache fetches and checks one as a whole.
const maxCut = 16 << 20

// A Prover says how the blob of a layer is cut, and whether bytes are those of a cut.
// It implements PartlyProved of package remote/cache/blobs. It is in memory and needs nothing
// of the index that it was made from. It is safe for concurrent use.
//
// How a blob is cut goes by the proofs of its index:
//
//   - ProofChunks: into chunks of one size, each with its SHA-256.
//   - ProofBlob: into the ranges that have a SHA-256, of which neighbours may share a
//     byte.
//   - ProofOutput: into runs of gzip members or zstd frames. A run is matched by
//     decoding it: each proof in it must hold. Bytes that no proof depends on, like those
//     of headers between two contents, may be any. They decode to nothing that a Reader
//     hands on.
//
// Cuts of what no proof covers (a header before, the TOC behind) match nothing.
type Prover struct {
	cuts
	size   int64
	sum    [sha256.Size]byte
	reader atomic.Pointer[Reader] // that gets what Match decodes
}

// cuts are those of one kind of proof.
type cuts interface {
	count() int64
	bounds(k int64) (off, end int64)
	// proved is Proved.
	proved(k int64) bool
	// match is Match for data of the right length. p is whose cuts they are.
	match(p *Prover, k int64, data []byte) bool
	// proofs calls yield with all that bounds and match go by.
	proofs(yield func(p []byte))
}

// NewProver returns the Prover of a layer. It takes some 55 bytes for each proof of the
// output or member. The error wraps layerindex.ErrIndex if the proofs do not fit the blob,
// or if a cut would be longer than 16 MiB.
func NewProver(x *layerindex.Index) (*Prover, error) {
	p := &Prover{size: x.BlobSize()}
	var err error
	switch x.ProofKind() {
	case layerindex.ProofChunks:
		p.cuts, err = newChunkCuts(x)
	case layerindex.ProofBlob:
		p.cuts, err = newRangeCuts(x)
	case layerindex.ProofOutput:
		p.cuts, err = newRunCuts(x)
	default:
		err = fmt.Errorf("%w: unknown proofs", layerindex.ErrIndex)
	}
	if err != nil {
		return nil, err
	}
	for k := range p.Len() {
		if off, end := p.Bounds(k); end-off > maxCut {
			return nil, fmt.Errorf("%w: bytes %d to %d of the blob can only be checked as a whole, and are more than %d",
				layerindex.ErrIndex, off, end, maxCut)
		}
	}
	p.sum = p.name(x)
	return p, nil
}

// Len returns the number of cuts.
func (p *Prover) Len() int64 { return p.count() }

// Bounds returns where cut k begins and ends in the blob. All together cover the blob.
// Each begins behind the beginning of the one before and ends behind its end; it begins
// where that ends, or one byte before.
func (p *Prover) Bounds(k int64) (off, end int64) { return p.bounds(k) }

// Find returns the first cut whose end is behind byte off of the blob, Len if there is
// none.
func (p *Prover) Find(off int64) int64 {
	return int64(sort.Search(int(p.Len()), func(k int) bool {
		_, end := p.Bounds(int64(k))
		return end > off
	}))
}

// Proved reports whether any data matches cut k: not that of what no proof covers.
func (p *Prover) Proved(k int64) bool { return p.proved(k) }

// Match reports whether data is cut k. Any data will do: what it decodes to is bounded
// by what the cut should. A Reader that has the Prover gets what was decoded.
func (p *Prover) Match(k int64, data []byte) bool {
	off, end := p.Bounds(k)
	return int64(len(data)) == end-off && p.match(p, k, data)
}

// Sum returns the SHA-256 of what Bounds and Match go by, and of which index that is:
// Provers with the same sum have the same cuts, and are of the same index.
func (p *Prover) Sum() [sha256.Size]byte { return p.sum }

// name computes the sum: docs/index-format.md, "Runs".
func (p *Prover) name(x *layerindex.Index) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(appendInts([]byte("imgfscut"), int64(x.ProofKind()), p.size))
	header := x.HeaderSum() // what one index is found to be guilty of is not another's fault
	h.Write(header[:])
	p.proofs(func(p []byte) { h.Write(p) })
	h.Sum(sum[:0])
	return sum
}

// appendInts appends numbers for a sum.
func appendInts(b []byte, numbers ...int64) []byte {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// appendProof appends a proof for a sum.
func appendProof(b []byte, p layerindex.Proof) []byte {
	return append(appendInts(b, p.Off, p.Size), p.Sum[:]...)
}

// chunkCuts are chunks of one size.
type chunkCuts struct {
	size, chunk int64
	sums        []byte
}

func newChunkCuts(x *layerindex.Index) (*chunkCuts, error) {
	sums, err := x.ChunkSums()
	if err != nil {
		return nil, err
	}
	return &chunkCuts{x.BlobSize(), x.ChunkSize(), sums}, nil
}

func (c *chunkCuts) count() int64 { return int64(len(c.sums) / sha256.Size) }

func (c *chunkCuts) bounds(k int64) (off, end int64) {
	return k * c.chunk, min((k+1)*c.chunk, c.size)
}

func (c *chunkCuts) proved(int64) bool { return true }

func (c *chunkCuts) match(_ *Prover, k int64, data []byte) bool {
	return sha256.Sum256(data) == [sha256.Size]byte(c.sums[k*sha256.Size:])
}

func (c *chunkCuts) proofs(yield func([]byte)) {
	yield(appendInts(nil, c.chunk))
	yield(c.sums)
}

// rangeCuts are ranges of the blob, each with its sum, and the gaps between them.
type rangeCuts struct {
	ranges *layerindex.Proofs
	list   []rangeCut
}

// A rangeCut is proof number proof, or a gap if that is negative.
type rangeCut struct {
	off, end int64
	proof    int
}

func newRangeCuts(x *layerindex.Index) (*rangeCuts, error) {
	ranges, err := x.Proofs()
	if err != nil {
		return nil, err
	}
	c := &rangeCuts{ranges: ranges}
	last := rangeCut{}
	for i := range ranges.Len() {
		p := ranges.At(i)
		r := rangeCut{p.Off, p.Off + p.Size, i}
		if r.end > x.BlobSize() || r.end <= last.end || i > 0 && r.off <= last.off || r.off < last.end-1 {
			return nil, fmt.Errorf("%w: proof of bytes %d to %d of a blob of %d, behind one that ends at %d",
				layerindex.ErrIndex, r.off, r.end, x.BlobSize(), last.end)
		}
		c.addGap(last.end, r.off)
		c.list = append(c.list, r)
		last = r
	}
	c.addGap(last.end, x.BlobSize())
	return c, nil
}

// addGap adds cuts for what is between two proofs.
func (c *rangeCuts) addGap(off, end int64) {
	for ; off < end; off += maxCut {
		c.list = append(c.list, rangeCut{off, min(off+maxCut, end), -1})
	}
}

func (c *rangeCuts) count() int64 { return int64(len(c.list)) }

func (c *rangeCuts) bounds(k int64) (off, end int64) { return c.list[k].off, c.list[k].end }

func (c *rangeCuts) proved(k int64) bool { return c.list[k].proof >= 0 }

func (c *rangeCuts) match(_ *Prover, k int64, data []byte) bool {
	return c.proved(k) && c.ranges.At(c.list[k].proof).Sum == sha256.Sum256(data)
}

func (c *rangeCuts) proofs(yield func([]byte)) {
	for i := range c.ranges.Len() {
		yield(appendProof(nil, c.ranges.At(i)))
	}
}
