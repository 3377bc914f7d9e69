package reader

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"github.com/imgfs/imgfs/layerindex"
)

// runCuts are the runs of a layer in contents space, and what is before and behind
// them in the blob.
type runCuts struct {
	l          *layout
	size       int64 // of the blob
	head, tail int64 // how many cuts are before and behind the runs
}

func newRunCuts(x *layerindex.Index) (*runCuts, error) {
	if x.Space() != layerindex.SpaceContents || x.Codec() == layerindex.Plain {
		return nil, fmt.Errorf("%w: proofs of output for a %v in tar space", layerindex.ErrIndex, x.Codec())
	}
	l, err := newLayout(x)
	if err != nil {
		return nil, err
	}
	c := &runCuts{l: l, size: x.BlobSize()}
	c.head, c.tail = pieces(l.runs[0].in), pieces(c.size-l.runs[l.Len()].in)
	return c, nil
}

// pieces returns into how many cuts n bytes are divided that have no proof.
func pieces(n int64) int64 { return (n + maxCut - 1) / maxCut }

func (c *runCuts) count() int64 { return c.head + int64(c.l.Len()) + c.tail }

func (c *runCuts) bounds(k int64) (off, end int64) {
	runs := int64(c.l.Len())
	switch {
	case k < c.head:
		return k * maxCut, min((k+1)*maxCut, c.l.runs[0].in)
	case k < c.head+runs:
		return c.l.runs[k-c.head].in, c.l.runs[k-c.head+1].in
	}
	off = c.l.runs[runs].in + (k-c.head-runs)*maxCut
	return off, min(off+maxCut, c.size)
}

func (c *runCuts) proofs(yield func([]byte)) {
	l := c.l
	for i := range l.Len() {
		for k := int(l.runs[i].member); k < int(l.runs[i+1].member); k++ {
			m := l.member(i, k)
			yield(appendInts(nil, m.out, m.outEnd, m.in, m.inEnd))
		}
	}
	for i := range l.proofs.Len() {
		yield(appendProof(nil, l.proofs.At(i)))
	}
}

// proved reports whether cut k is a run with a proof: one without is as good as none.
func (c *runCuts) proved(k int64) bool {
	i := int(k - c.head)
	return i >= 0 && i < c.l.Len() && c.l.runs[i].proof != c.l.runs[i+1].proof
}

// match decodes a run and compares all proofs in it.
func (c *runCuts) match(p *Prover, k int64, data []byte) bool {
	if !c.proved(k) {
		return false
	}
	i := int(k - c.head)
	r := p.reader.Load()
	d := runDecoders.Get().(*runDecoder)
	defer d.release()
	if c.l.runs[i+1].out-c.l.runs[i].out > maxSpanMemory {
		return c.matchLong(d, r, i, data)
	}
	return c.matchShort(d, r, i, data)
}

// matchShort matches a run in memory and hands it to r.
func (c *runCuts) matchShort(d *runDecoder, r *Reader, i int, data []byte) bool {
	buf := r.runBuffer(c.l, i)
	q := proofQueue{l: c.l, next: int(c.l.runs[i].proof), at: c.l.runs[i].out}
	if err := d.decode(c.l, i, data, buf, func(n int) error { return q.check(buf[:n]) }); err != nil || !q.done(i) {
		r.reuse(buf)
		return false
	}
	r.offer(c.l, i, buf)
	return true
}

// matchLong matches a run that is too long for memory. It ends when r is closed.
func (c *runCuts) matchLong(d *runDecoder, r *Reader, i int, data []byte) bool {
	ctx := context.Background()
	if r != nil {
		ctx = r.closing
	}
	q := proofQueue{l: c.l, next: int(c.l.runs[i].proof), at: c.l.runs[i].out}
	return d.stream(ctx, c.l, i, data, &q) == nil && q.done(i)
}

// errProof ends the decoding of a run that is not what its proofs say.
var errProof = errors.New("proof does not hold")

// A proofQueue compares the proofs of a run with its output, in order.
type proofQueue struct {
	l    *layout
	next int       // the proof that is due
	at   int64     // in the out space: of the first byte, and then of the next in a stream
	hash hash.Hash // of the proof that is due, in a stream
}

// done reports whether all proofs of run i have been compared.
func (q *proofQueue) done(i int) bool { return q.next == int(q.l.runs[i+1].proof) }

// due returns the proof that is due, and whether there is one.
func (q *proofQueue) due() (p layerindex.Proof, ok bool) {
	if q.next == q.l.proofs.Len() {
		return p, false
	}
	return q.l.proofs.At(q.next), true
}

// check compares the proofs that lie in the beginning of a run, as far as they
// have not been.
func (q *proofQueue) check(out []byte) error {
	for {
		p, ok := q.due()
		if !ok || proofEnd(p)-q.at > int64(len(out)) {
			return nil
		}
		if sha256.Sum256(out[p.Off-q.at:][:p.Size]) != p.Sum {
			return errProof
		}
		q.next++
	}
}

// Write compares the proofs with the output of a run, piece by piece.
func (q *proofQueue) Write(out []byte) (int, error) {
	n := len(out)
	for len(out) > 0 {
		p, ok := q.due()
		if !ok {
			break
		}
		skip := min(max(p.Off-q.at, 0), int64(len(out)))
		out, q.at = out[skip:], q.at+skip
		part := out[:min(proofEnd(p)-q.at, int64(len(out)))]
		if q.hash == nil {
			q.hash = sha256.New()
		}
		q.hash.Write(part)
		out, q.at = out[len(part):], q.at+int64(len(part))
		if q.at < proofEnd(p) {
			break
		}
		if [sha256.Size]byte(q.hash.Sum(nil)) != p.Sum {
			return 0, errProof
		}
		q.hash.Reset()
		q.next++
	}
	return n, nil
}
