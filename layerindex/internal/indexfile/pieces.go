package indexfile

import (
	"crypto/sha256"
	"hash"
)

// pieceSums collects the SHA-256 of each piece of what is written to it.
type pieceSums struct {
	sum  hash.Hash
	n    int // bytes in sum
	sums []byte
}

// Write never fails.
func (p *pieceSums) Write(b []byte) (int, error) {
	all := len(b)
	if p.sum == nil {
		p.sum = sha256.New()
	}
	for len(b) > 0 {
		k := min(len(b), PieceSize-p.n)
		p.sum.Write(b[:k])
		if p.n += k; p.n == PieceSize {
			p.end()
		}
		b = b[k:]
	}
	return all, nil
}

func (p *pieceSums) end() {
	p.sums = p.sum.Sum(p.sums)
	p.sum.Reset()
	p.n = 0
}

// finish returns the sums, of which the last may be of a shorter piece.
func (p *pieceSums) finish() []byte {
	if p.n > 0 {
		p.end()
	}
	return p.sums
}

// piecesLen returns how many bytes the sums of the pieces of so many bytes take.
func piecesLen(size int64) int64 { return (size + PieceSize - 1) / PieceSize * sha256.Size }
