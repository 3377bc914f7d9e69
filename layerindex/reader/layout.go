package reader

import (
	"fmt"
	"math"
	"sort"

	"github.com/imgfs/imgfs/layerindex"
)

// A layout is the pieces that a compressed layer is decoded in. In tar space they are
// the spans of its index. In contents space, where a gzip member or zstd frame may
// hold one small file, they are runs of members. It is immutable and safe for
// concurrent use.
type layout struct {
	codec layerindex.Codec
	size  int64 // of the out space
	// spans are set in tar space, and the rest in contents space, where nothing
	// of the index is held.
	spans *layerindex.Spans

	runs    []run // and one more, for where the last one ends
	members []member
	proofs  *layerindex.Proofs
}

// A run is where a run of members begins.
type run struct {
	out, in int64
	member  uint32 // its first
	proof   uint32 // the first one in it, or behind
}

// A member is where a member begins, less where its run does.
type member struct{ out, in uint32 }

// Small members are grouped until they have runIn bytes of the blob or runOut bytes of
// output. A member that has as much is a run of its own. Blob files are named for what
// this makes of an index: docs/index-format.md, "Runs".
const (
	runIn  = 64 << 10
	runOut = 1 << 20
)

// newLayout returns the layout of a compressed layer. The error wraps ErrIndex.
func newLayout(x *layerindex.Index) (*layout, error) {
	t, err := x.Spans()
	if err != nil {
		return nil, err
	}
	l := &layout{codec: x.Codec(), size: x.Size()}
	if x.Space() == layerindex.SpaceTar {
		l.spans = t
		return l, nil
	}
	if l.proofs, err = x.Proofs(); err != nil {
		return nil, err
	}
	if err := l.group(t, x.BlobSize()); err != nil {
		return nil, err
	}
	return l, nil
}

// group makes runs of the spans of contents space, each of which is a member. Members that
// a proof reaches over are in one run, whatever they have.
func (l *layout) group(t *layerindex.Spans, blobSize int64) error {
	n := t.Len()
	// The last checkpoint may be where the contents end in the blob.
	if n > 1 {
		if out, in := t.Start(n - 1); out == l.size {
			n, blobSize = n-1, in
		}
	}
	l.members = make([]member, 0, n)
	proof := 0 // the first that ends behind the member in hand begins
	for i := range n {
		out, in := t.Start(i)
		outEnd, inEnd := l.size, blobSize
		if i+1 < n {
			outEnd, inEnd = t.Start(i + 1)
		}
		for proof < l.proofs.Len() && proofEnd(l.proofs.At(proof)) <= out {
			proof++
		}
		joined := proof < l.proofs.Len() && l.proofs.At(proof).Off < out
		if i == 0 || !joined && l.full(out, in, outEnd-out, inEnd-in) {
			l.runs = append(l.runs, run{out: out, in: in, member: uint32(i), proof: uint32(proof)})
		}
		r := l.runs[len(l.runs)-1]
		if out-r.out > math.MaxUint32 || in-r.in > math.MaxUint32 {
			return fmt.Errorf("%w: a proof reaches from the member at byte %d of the blob to the one at %d", layerindex.ErrIndex, r.in, in)
		}
		l.members = append(l.members, member{uint32(out - r.out), uint32(in - r.in)})
	}
	l.runs = append(l.runs, run{out: l.size, in: blobSize, member: uint32(n), proof: uint32(l.proofs.Len())})
	return nil
}

// full reports whether the run in hand, which ends at out and in, is not to be
// continued with a member of so many bytes.
func (l *layout) full(out, in, outSize, inSize int64) bool {
	r := l.runs[len(l.runs)-1]
	return out-r.out >= runOut || in-r.in >= runIn || outSize >= runOut || inSize >= runIn
}

func proofEnd(p layerindex.Proof) int64 { return p.Off + p.Size }

// Len returns how many pieces there are: at least one, unless the out space has no bytes.
func (l *layout) Len() int {
	if l.spans != nil {
		return l.spans.Len()
	}
	return len(l.runs) - 1
}

// Find returns the number of the piece that holds byte out.
func (l *layout) Find(out int64) int {
	if l.spans != nil {
		return l.spans.Find(out)
	}
	n := len(l.runs) - 1
	return sort.Search(n, func(i int) bool { return l.runs[i].out > out }) - 1
}

// Start returns the offsets in the out space and in the blob at which piece i begins.
func (l *layout) Start(i int) (out, in int64) {
	if l.spans != nil {
		return l.spans.Start(i)
	}
	return l.runs[i].out, l.runs[i].in
}

// End returns the offsets in the out space and in the blob at which piece i ends.
func (l *layout) End(i int) (out, in int64) {
	if l.spans != nil {
		return l.spans.End(i)
	}
	return l.runs[i+1].out, l.runs[i+1].in
}

// A memberRange is where a member lies.
type memberRange struct{ out, outEnd, in, inEnd int64 }

// member returns where member k lies, which is one of run i.
func (l *layout) member(i, k int) memberRange {
	r := &l.runs[i]
	m := memberRange{out: r.out + int64(l.members[k].out), in: r.in + int64(l.members[k].in)}
	if k+1 < int(l.runs[i+1].member) {
		m.outEnd, m.inEnd = r.out+int64(l.members[k+1].out), r.in+int64(l.members[k+1].in)
	} else {
		m.outEnd, m.inEnd = l.runs[i+1].out, l.runs[i+1].in
	}
	return m
}

// covered returns an error that wraps ErrIndex unless each byte from off to end of
// contents space is in a proof. In tar space any byte is as good as any other.
func (l *layout) covered(off, end int64) error {
	if l.spans != nil || off >= end {
		return nil
	}
	i := l.Find(off)
	first, last := int(l.runs[i].proof), int(l.runs[i+1].proof)
	k := first + sort.Search(last-first, func(k int) bool { return proofEnd(l.proofs.At(first+k)) > off })
	for at := off; at < end; k++ {
		if k == l.proofs.Len() || l.proofs.At(k).Off > at {
			return fmt.Errorf("%w: no proof covers byte %d of the contents", layerindex.ErrIndex, at)
		}
		at = proofEnd(l.proofs.At(k))
	}
	return nil
}
