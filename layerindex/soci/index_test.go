package soci

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
)

// TestForeign: the index from each ztoc that SOCI made of the images in the shared
// folder has the entries that a pass over the layer finds, and gives the same bytes.
func TestForeign(t *testing.T) {
	t.Parallel()
	spans := map[string]int{"sink-soci-v1": 3, "sink-soci-v2": 3, "sink-soci-v2-small": 6, "soci-tar": 3}
	for _, name := range []string{"latin1-soci-v2", "sink-soci-v1", "sink-soci-v2", "sink-soci-v2-small", "soci-emptyfirst", "soci-forty", "soci-tar"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			most := 0
			for _, s := range foreign(t, name) {
				x := s.index(t)
				if x.Origin() != layerindex.OriginSOCI || x.ProofKind() != layerindex.ProofBlob || x.Space() != layerindex.SpaceTar || x.Losses() != 0 || x.HasDigests() {
					t.Errorf("%s: origin %v, proofs %v, space %v, losses %v", s.name, x.Origin(), x.ProofKind(), x.Space(), x.Losses())
				}
				if x.Digest() != s.layer().Digest || x.DiffID() != s.layer().DiffID || x.BlobSize() != int64(len(s.blob)) {
					t.Errorf("%s: the index is of %v", s.name, x.Digest())
				}
				checkEntries(t, x, s.pass(t))
				s.checkContent(t, x)
				proofs, err := x.Proofs()
				if err != nil {
					t.Fatal(err)
				}
				most = max(most, proofs.Len())
			}
			if want := spans[name]; want > 0 && most != want {
				t.Errorf("%d spans, want %d", most, want)
			}
		})
	}
}

// TestForeignSparse: the real sizes at physical offsets of a sparse file are refused.
func TestForeignSparse(t *testing.T) {
	t.Parallel()
	for _, s := range foreign(t, "soci-sparse-posix") {
		if _, err := Index(context.Background(), s.layer(), s.ztoc, nil); !errors.Is(err, layerindex.ErrLossy) || errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%v, want ErrLossy", err)
		}
	}
}

// TestForeignFirst: the ranges of a prefetch document are those of its spans.
func TestForeignFirst(t *testing.T) {
	t.Parallel()
	for _, s := range foreign(t, "sink-soci-v2-small") {
		x := s.index(t)
		first, err := x.First()
		if err != nil {
			t.Fatal(err)
		}
		if s.first == nil {
			if first != nil {
				t.Errorf("%s: %v to fetch first", s.name, first)
			}
			continue
		}
		proofs, err := x.Proofs()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.first, []SpanRange{{0, 2}}) {
			t.Errorf("spans %v", s.first)
		}
		end := proofs.At(2).Off + proofs.At(2).Size
		if want := []layerindex.Extent{{Off: 10, Size: end - 10}}; !slices.Equal(first, want) {
			t.Errorf("ranges %v, want %v", first, want)
		}
	}
}

// TestSpansProve: each span of the blob is what the ztoc says, and none with a bit
// flipped, not even in the byte that it shares with its neighbour.
func TestSpansProve(t *testing.T) {
	t.Parallel()
	shared := 0
	for _, s := range fixtures(t) {
		p, err := reader.NewProver(s.index(t))
		if err != nil {
			t.Fatal(err)
		}
		spans, before := mustOpen(t, s.ztoc).spans, int64(0)
		for k := range p.Len() {
			off, end := p.Bounds(k)
			if len(spans) > 0 && end <= spans[0].off {
				if p.Match(k, s.blob[off:end]) {
					t.Errorf("%s: the header, which is in no span, matches", s.name)
				}
				continue
			}
			if len(spans) == 0 || spans[0].off != off || spans[0].end != end {
				t.Fatalf("%s: cut %d is from %d to %d", s.name, k, off, end)
			}
			spans = spans[1:]
			if off < before {
				shared++
			}
			before = end
			data := bytes.Clone(s.blob[off:end])
			if !p.Match(k, data) || p.Match(k, data[1:]) || p.Match(k, data[:len(data)-1]) {
				t.Errorf("%s: cut %d does not match, or a part of it does", s.name, k)
			}
			for _, i := range []int{0, len(data) / 2, len(data) - 1} {
				data[i] ^= 0x80
				if p.Match(k, data) {
					t.Errorf("%s: cut %d matches with byte %d changed", s.name, k, i)
				}
				data[i] ^= 0x80
			}
		}
	}
	if shared == 0 {
		t.Error("no spans share a byte")
	}
}
