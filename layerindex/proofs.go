package layerindex

import (
	"crypto/sha256"
	"fmt"
	"math"
	"sort"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// maxProof is how many bytes a proof may be of.
const maxProof = math.MaxUint32

// A Proof is the SHA-256 of Size bytes at Off: of the blob for ProofBlob, of the out
// space for ProofOutput. Size is never 0.
type Proof struct {
	Off, Size int64
	Sum       [sha256.Size]byte
}

// Proofs are the proofs of an index in the order of their offsets. They are immutable
// and safe for concurrent use.
type Proofs struct {
	offs  []int64
	sizes []uint32
	sums  []byte
}

// Len returns how many proofs there are.
func (p *Proofs) Len() int { return len(p.offs) }

// At returns proof i.
func (p *Proofs) At(i int) Proof {
	return Proof{p.offs[i], int64(p.sizes[i]), [sha256.Size]byte(p.sums[i*sha256.Size:])}
}

// Find returns the number of the first proof that ends behind byte off, Len if there
// is none. It begins at or before that byte unless the byte is in no proof.
func (p *Proofs) Find(off int64) int {
	return sort.Search(len(p.offs), func(i int) bool { return p.end(i) > off })
}

func (p *Proofs) end(i int) int64 { return p.offs[i] + int64(p.sizes[i]) }

// Proofs returns the proofs of an index that has ProofBlob or ProofOutput, nil for
// ProofChunks. They stay in memory. The error wraps ErrIndex.
func (x *Index) Proofs() (*Proofs, error) {
	if x.ProofKind() == ProofChunks {
		return nil, nil
	}
	if p := x.proofTable.value.Load(); p != nil {
		return *p, nil
	}
	return x.proofTable.get(x.readProofs)
}

// readProofs reads the section of proofs and checks it (docs/index-format.md, kind 6).
func (x *Index) readProofs() (*Proofs, error) {
	b, err := x.file.Section(indexfile.Proofs)
	if err != nil {
		return nil, err
	}
	n := int64(x.file.Proofs)
	// Each takes a byte in both columns, at least, and a sum.
	if n > int64(len(b))/(sha256.Size+2) {
		return nil, fmt.Errorf("%w: %d proofs in %d bytes", ErrIndex, n, len(b))
	}
	c := column.Over(b)
	gaps := column.Over(c.Bytes(c.Length()))
	sizes := column.Over(c.Bytes(c.Length()))
	p := &Proofs{offs: make([]int64, n), sizes: make([]uint32, n), sums: c.Bytes(int(n) * sha256.Size)}
	if c.Err != nil || c.Rest() != 0 {
		return nil, fmt.Errorf("%w: proofs: columns", ErrIndex)
	}
	check := proofOrder{kind: x.ProofKind(), limit: x.proofLimit()}
	for i := range p.offs {
		// A sum of two that are in range does not overflow.
		off := check.end + max(-MaxSize, min(gaps.Varint(), MaxSize))
		size := int64(sizes.Small(maxProof))
		if gaps.Err != nil || sizes.Err != nil {
			return nil, fmt.Errorf("%w: proof %d: %w", ErrIndex, i, column.ErrShort)
		}
		if err := check.next(off, size); err != nil {
			return nil, fmt.Errorf("%w: proof %d: %w", ErrIndex, i, err)
		}
		p.offs[i], p.sizes[i] = off, uint32(size)
	}
	if gaps.Rest() != 0 || sizes.Rest() != 0 {
		return nil, fmt.Errorf("%w: proofs: columns", ErrIndex)
	}
	return p, nil
}

// proofLimit returns where the bytes end that proofs may be of.
func (x *Index) proofLimit() int64 {
	if x.ProofKind() == ProofOutput {
		return x.file.TarSize
	}
	return x.file.BlobSize
}

// A proofOrder checks that proofs follow each other as they may.
type proofOrder struct {
	kind       ProofKind
	limit      int64
	start, end int64 // of the last one
}

// next checks one more proof.
func (o *proofOrder) next(off, size int64) error {
	least := o.end
	if o.kind == ProofBlob {
		least = max(o.start, o.end-1)
	}
	if size <= 0 || size > maxProof || off < least || off > o.limit || size > o.limit-off || off+size <= o.end {
		return fmt.Errorf("%d bytes at %d of %d, behind one that ends at %d", size, off, o.limit, o.end)
	}
	o.start, o.end = off, off+size
	return nil
}

// A coverage goes through proofs of the output beside the contents that they are of.
type coverage struct {
	proofs *Proofs
	i      int // the first proof that may be of the next content
}

// has reports whether all bytes from off to end are in proofs. Off must not decrease.
func (c *coverage) has(off, end int64) bool {
	p := c.proofs
	for off < end {
		for c.i < p.Len() && p.end(c.i) <= off {
			c.i++
		}
		if c.i == p.Len() || p.offs[c.i] > off {
			return false
		}
		off = p.end(c.i)
	}
	return true
}

// First returns the ranges of the blob that are worth fetching before anything is
// read, in the order of their use, none if nobody said. They may overlap. The error
// wraps ErrIndex.
func (x *Index) First() ([]Extent, error) {
	if !x.file.Has(indexfile.First) {
		return nil, nil
	}
	b, err := x.file.Section(indexfile.First)
	if err != nil {
		return nil, err
	}
	c := column.Over(b)
	n := c.Length()
	if n == 0 || n > maxFirst {
		return nil, fmt.Errorf("%w: %d ranges to fetch first", ErrIndex, n)
	}
	list := make([]Extent, n)
	for i := range list {
		e := Extent{Off: int64(c.Small(uint64(x.file.BlobSize)))}
		e.Size = int64(c.Small(uint64(x.file.BlobSize - e.Off)))
		if c.Err != nil || e.Size == 0 {
			return nil, fmt.Errorf("%w: ranges to fetch first", ErrIndex)
		}
		list[i] = e
	}
	if c.Rest() != 0 {
		return nil, fmt.Errorf("%w: ranges to fetch first", ErrIndex)
	}
	return list, nil
}
