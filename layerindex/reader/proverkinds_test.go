package reader

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// sumsOf returns an index of a gzip layer in tar space, whose proofs are of ranges of
// the blob from and to these places.
func sumsOf(t *testing.T, blob, tar []byte, points []layerindex.Checkpoint, ranges [][2]int64) *layerindex.Index {
	t.Helper()
	w := layerindex.NewWriter(nil)
	if err := w.AddCheckpoints(points); err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		if err := w.AddProof(layerindex.Proof{Off: r[0], Size: r[1] - r[0], Sum: sha256.Sum256(blob[r[0]:r[1]])}); err != nil {
			t.Fatal(err)
		}
	}
	x, err := w.Finish(layerindex.Summary{
		Codec: layerindex.Gzip, Blob: sha256.Sum256(blob), BlobSize: int64(len(blob)), DiffID: sha256.Sum256(tar), TarSize: int64(len(tar)),
		Proof: layerindex.ProofBlob, Origin: layerindex.OriginSOCI,
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestProverBlob has the spans of a ztoc: the first behind the gzip header, which nothing
// covers, neighbours that share a byte, and windows as they are.
func TestProverBlob(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	tar := samples.Tar(t, 6<<20)
	blob := samples.Gzip(t, tar)
	table, err := mustBuild(t, blob, tar, nil).Spans()
	if err != nil {
		t.Fatal(err)
	}
	points := pointsOf(t, table)
	points[0] = layerindex.Checkpoint{In: 10} // behind the header
	var ranges [][2]int64
	for i := range points {
		end := int64(len(blob))
		if p := &points[i]; i > 0 {
			if p.Symbol != 0 {
				t.Fatal("a checkpoint inside a block")
			}
			raw := bytes.Repeat([]byte{0xaa}, 32<<10)
			copy(raw, tar[p.Out-32<<10:p.Out])
			p.Window = layerindex.Window{Runs: []layerindex.Run{{Len: 32 << 10}}, Data: raw}
		}
		if i+1 < len(points) {
			end = points[i+1].In
			if points[i+1].Bit > 0 {
				end++
			}
		}
		ranges = append(ranges, [2]int64{points[i].In, end})
	}
	gap := len(ranges) / 2
	hole := ranges[gap]
	x := sumsOf(t, blob, tar, points, slices.Delete(slices.Clone(ranges), gap, gap+1))
	if len(points) < 4 {
		t.Fatalf("%d checkpoints", len(points))
	}
	p := mustProver(t, x)
	checkCuts(t, p, int64(len(blob)))
	for k := range p.Len() {
		off, end := p.Bounds(k)
		data := bytes.Clone(blob[off:end])
		proven := end > 10 && (end <= hole[0]+1 || off >= hole[1]-1)
		if p.Match(k, data) != proven || p.Proved(k) != proven {
			t.Errorf("Match of %d to %d is %v", off, end, !proven)
		}
		data[len(data)/2] ^= 4
		if p.Match(k, data) || p.Match(k, data[1:]) {
			t.Errorf("Match of wrong bytes from %d to %d", off, end)
		}
	}
	cut := &cutBlob{Blob: blob, p: p}
	r := New(x, cut, &Options{Prover: p})
	defer r.Close()
	failed := 0
	for off := int64(0); off < int64(len(tar)); off += 10_000 {
		b := make([]byte, 10_000)
		n, err := r.ReadAt(t.Context(), b, off)
		if errors.Is(err, errCut) {
			failed++
		} else if err != nil && err != io.EOF || !bytes.Equal(b[:n], tar[off:off+int64(n)]) {
			t.Fatalf("ReadAt(%d) = %d, %v", off, n, err)
		}
	}
	if out, end := points[gap].Out, points[gap+1].Out; failed == 0 || int64(failed) > (end-out)/10_000+20 {
		t.Errorf("%d reads failed of a hole from %d to %d", failed, out, end)
	}
}

// TestProverChunks: the chunks of our own index.
func TestProverChunks(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	tar := samples.Tar(t, 1<<20)
	for _, c := range samples.Codecs {
		blob := c.Wrap(t, tar)
		p := mustProver(t, mustBuild(t, blob, tar, nil))
		checkCuts(t, p, int64(len(blob)))
		for k := range p.Len() {
			off, end := p.Bounds(k)
			data := bytes.Clone(blob[off:end])
			if !p.Match(k, data) || !p.Proved(k) {
				t.Errorf("%s: chunk %d does not match", c.Name, k)
			}
			data[len(data)-1]++
			if p.Match(k, data) {
				t.Errorf("%s: chunk %d matches anything", c.Name, k)
			}
		}
	}
}
