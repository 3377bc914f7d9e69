package layerindex

import (
	"crypto/sha256"
	"fmt"
	"math"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// maxFirst is how many ranges of a blob may be said to be fetched first.
const maxFirst = 1 << 12

// maxProofs is how many proofs the header of a file can count.
const maxProofs = math.MaxUint32

// A proofWriter collects proofs (docs/index-format.md, kind 6).
type proofWriter struct {
	budget *Budget
	n      int64
	end    int64
	gaps   column.Column
	sizes  column.Column
	sums   column.Column
}

func (w *proofWriter) add(p Proof) error {
	if p.Off < 0 || p.Off > MaxSize || p.Size <= 0 || p.Size > maxProof || p.Off < w.end-1 || w.n == maxProofs {
		return fmt.Errorf("%w: proof %d of %d bytes at %d, behind one that ends at %d", ErrIndex, w.n, p.Size, p.Off, w.end)
	}
	if err := w.budget.Take(proofCost); err != nil {
		return err
	}
	w.gaps.Varint(p.Off - w.end)
	w.sizes.Uvarint(uint64(p.Size))
	_, err := w.sums.Write(p.Sum[:])
	w.end = p.Off + p.Size
	w.n++
	return err
}

// section returns the section of proofs, decoded.
func (w *proofWriter) section() column.Column {
	var all column.Column
	all.Uvarint(uint64(w.gaps.Size))
	_ = w.gaps.MoveTo(&all) // a column takes all
	all.Uvarint(uint64(w.sizes.Size))
	_ = w.sizes.MoveTo(&all)
	all.Pieces, all.Size = append(all.Pieces, w.sums.Pieces...), all.Size+w.sums.Size
	return all
}

// firstSection returns the section of ranges to fetch first.
func firstSection(list []Extent) column.Column {
	var all column.Column
	all.Uvarint(uint64(len(list)))
	for _, e := range list {
		all.Uvarint(uint64(e.Off))
		all.Uvarint(uint64(e.Size))
	}
	return all
}

// proofParts returns the parts of a file that has what the layer's bytes are checked
// against, of the kind that a layer's summary names.
func (w *Writer) proofParts(kind ProofKind) ([]indexfile.Part, error) {
	if kind == ProofChunks {
		if w.proofs.n > 0 {
			return nil, fmt.Errorf("%w: %d proofs beside chunks", ErrIndex, w.proofs.n)
		}
		return []indexfile.Part{rawPart(indexfile.Chunks, column.Of(w.chunks))}, nil
	}
	if n := len(w.chunks) / sha256.Size; n > 0 {
		return nil, fmt.Errorf("%w: %d chunks beside proofs", ErrIndex, n)
	}
	return []indexfile.Part{rawPart(indexfile.Proofs, w.proofs.section())}, nil
}
