package layerindex

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A contentsLayer is what is said of a layer, mostly by a table of contents: members of
// the blob, and what lies in them.
type contentsLayer struct {
	entries []Entry
	points  []Checkpoint
	proofs  []Proof
	first   []Extent
	summary Summary
}

// randomContents makes a layer of n entries. Some members hold several files, some files
// are in several members.
func randomContents(rng *rand.Rand, n int) *contentsLayer {
	l := &contentsLayer{}
	in, out := int64(10), int64(0)
	for i := range n {
		e := Entry{Name: fmt.Sprint("dir/", i), Type: TypeReg, Off: roundUp(out), Mode: 0o644}
		switch rng.IntN(5) {
		case 0:
			l.entries = append(l.entries, Entry{Name: e.Name, Type: TypeDir, Mode: 0o755})
			continue
		case 1: // empty
			l.entries = append(l.entries, e)
			continue
		}
		out = e.Off
		for chunk := range 1 + rng.IntN(3) {
			if len(l.points) == 0 || chunk > 0 || rng.IntN(3) > 0 {
				in += 1 + rng.Int64N(5000)
				l.points = append(l.points, Checkpoint{In: in, Out: out, Start: true})
			}
			size := 1 + rng.Int64N(3000)
			l.proofs = append(l.proofs, Proof{Off: out, Size: size, Sum: sha256.Sum256(fmt.Append(nil, i, chunk))})
			e.Size += size
			out += size
		}
		e.HasDigest, e.Digest = true, sha256.Sum256(fmt.Append(nil, i))
		l.entries = append(l.entries, e)
	}
	l.first = []Extent{{Off: 0, Size: in}, {Off: 5, Size: 1}}
	l.summary = Summary{
		Codec: Zstd, Blob: sha256.Sum256([]byte("blob")), BlobSize: in + 10_000, DiffID: sha256.Sum256([]byte("tar")), TarSize: out,
		Space: SpaceContents, Proof: ProofOutput, Origin: OriginEStargz, Losses: LossSubSecond,
	}
	return l
}

// randomBlobProofs makes a gzip layer of about n spans in tar space, with proofs of the
// blob.
func randomBlobProofs(rng *rand.Rand, n int) *contentsLayer {
	l := &contentsLayer{entries: []Entry{{Name: "a", Type: TypeReg, Size: 1 << 20, Off: 512}}}
	in, out := int64(10), int64(0)
	for i := range n {
		p := Checkpoint{In: in, Out: out, Bit: uint8(rng.IntN(8)), Symbol: rng.Int64N(2) * rng.Int64N(1<<20)}
		for at := 0; out > 0 && rng.IntN(5) > 0; {
			run := Run{Off: uint16(at + 1 + rng.IntN(5000)), Len: uint16(1 + rng.IntN(300))}
			if at = int(run.Off) + int(run.Len); at > windowSize {
				break
			}
			p.Window.Runs = append(p.Window.Runs, run)
			for range run.Len {
				p.Window.Data = append(p.Window.Data, byte(rng.IntN(256)))
			}
		}
		if i > 0 && rng.IntN(10) == 0 {
			p = Checkpoint{In: in, Out: out, Start: true}
		}
		l.points = append(l.points, p)
		in, out = in+1+rng.Int64N(1<<20), out+1+rng.Int64N(1<<23)
	}
	end := int64(0)
	for end < in {
		off := max(0, end+rng.Int64N(3)-1)
		size := 2 + rng.Int64N(1<<20)
		l.proofs = append(l.proofs, Proof{Off: off, Size: size, Sum: sha256.Sum256(fmt.Append(nil, off))})
		end = off + size
	}
	for range rng.IntN(4) {
		l.first = append(l.first, Extent{rng.Int64N(end), 1})
	}
	l.summary = Summary{
		Codec: Gzip, Blob: sha256.Sum256([]byte("blob")), BlobSize: end, DiffID: sha256.Sum256([]byte("tar")), TarSize: out + 2<<20,
		Proof: ProofBlob, Origin: OriginSOCI,
	}
	return l
}

// index returns the index of the layer.
func (l *contentsLayer) index(t testing.TB, budget *Budget) *Index {
	t.Helper()
	w := NewWriter(&WriterOptions{Budget: budget})
	for i := range l.entries {
		if err := w.AddEntry(&l.entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.AddCheckpoints(l.points); err != nil {
		t.Fatal(err)
	}
	if l.summary.Proof == ProofChunks {
		for i := range chunkCount(l.summary.BlobSize, l.summary.ChunkSize) {
			w.AddChunk(sha256.Sum256([]byte{byte(i)}))
		}
	}
	for _, p := range l.proofs {
		if err := w.AddProof(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range l.first {
		w.AddFirst(e)
	}
	x, err := w.Finish(l.summary)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestProofsRoundTrip writes indexes of tables of contents, and of ztocs, and reads them
// again.
func TestProofsRoundTrip(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := randomContents(rng, 60)
		if seed%3 == 0 {
			l = randomBlobProofs(rng, 40)
		}
		written, listed := NewBudget(0, nil), NewBudget(0, nil)
		file := encoded(t, l.index(t, written))
		x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
		if err == nil {
			err = errors.Join(readEverything(file), x.Verify(t.Context()))
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if s := l.summary; x.Space() != s.Space || x.ProofKind() != s.Proof || x.Origin() != s.Origin || x.Losses() != s.Losses || x.Codec() != s.Codec {
			t.Errorf("%v, %v, %v, %v", x.Space(), x.ProofKind(), x.Origin(), x.Losses())
		}
		entries, err := decodedEntries(file)
		if err != nil || len(entries) != len(l.entries) {
			t.Fatalf("%d entries of %d, %v", len(entries), len(l.entries), err)
		}
		for i := range l.entries {
			if e := &l.entries[i]; e.Type == TypeReg && e.Size == 0 {
				e.HasDigest, e.Digest = true, emptyDigest
			}
		}
		compareEntries(t, entries, l.entries)
		spans, err := x.Spans()
		if err != nil || spans.Len() != len(l.points) {
			t.Fatal(err)
		}
		for i, want := range l.points {
			if got, err := spans.Checkpoint(i); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("checkpoint %d: %+v, %v, want %+v", i, got, err, want)
			}
		}
		proofs, err := x.Proofs()
		if err != nil {
			t.Fatal(err)
		}
		if got := allProofs(proofs); !slices.Equal(got, l.proofs) {
			t.Errorf("proofs %v, want %v", got, l.proofs)
		}
		for range 1000 {
			off := rng.Int64N(x.proofLimit() + 2)
			want := slices.IndexFunc(l.proofs, func(p Proof) bool { return p.Off+p.Size > off })
			if want < 0 {
				want = len(l.proofs)
			}
			if got := proofs.Find(off); got != want {
				t.Fatalf("Find(%d) = %d, want %d", off, got, want)
			}
		}
		if first, err := x.First(); err != nil || !slices.Equal(first, l.first) {
			t.Errorf("first: %v, %v, want %v", first, err, l.first)
		}
		if _, err := x.List(t.Context(), listed); err != nil || listed.Used() != written.Used() {
			t.Errorf("%d bytes when listed, %v; %d when written", listed.Used(), err, written.Used())
		}
		if _, err := x.ChunkSums(); !errors.Is(err, ErrIndex) {
			t.Errorf("ChunkSums: %v", err)
		}
	}
}

func allProofs(p *Proofs) (list []Proof) {
	for i := range p.Len() {
		list = append(list, p.At(i))
	}
	return list
}

// TestBlobProofs has proofs of the blob that share a byte, or have a gap between them.
func TestBlobProofs(t *testing.T) {
	for _, tt := range []struct {
		name string
		list []Extent
		ok   bool
	}{
		{"adjacent", []Extent{{0, 10}, {10, 10}}, true},
		{"shared byte", []Extent{{0, 10}, {9, 10}}, true},
		{"shared byte is all of one", []Extent{{5, 1}, {5, 10}}, true},
		{"gaps", []Extent{{3, 10}, {20, 80}}, true},
		{"two shared bytes", []Extent{{0, 10}, {8, 10}}, false},
		{"twice", []Extent{{5, 1}, {5, 1}}, false},
		{"inside", []Extent{{0, 10}, {9, 1}}, false},
		{"behind the blob", []Extent{{99, 2}}, false},
		{"far behind", []Extent{{MaxSize, 1 << 31}}, false},
		{"empty", []Extent{{5, 0}}, false},
		{"before the blob", []Extent{{-1, 5}}, false},
		{"too long", []Extent{{0, 1 << 32}}, false},
	} {
		w := NewWriter(nil)
		var want []Proof
		var err error
		for i, e := range tt.list {
			p := Proof{e.Off, e.Size, [32]byte{byte(i)}}
			want = append(want, p)
			err = errors.Join(err, w.AddProof(p))
		}
		var got *Proofs
		if err == nil {
			var x *Index
			if x, err = w.Finish(Summary{BlobSize: 100, TarSize: 100, Proof: ProofBlob, Origin: OriginSOCI}); err == nil {
				got, err = x.Proofs()
			}
		}
		switch {
		case tt.ok && (err != nil || !slices.Equal(allProofs(got), want)):
			t.Errorf("%s: %v, %v", tt.name, got, err)
		case !tt.ok && !errors.Is(err, ErrIndex):
			t.Errorf("%s: %v, want %v", tt.name, err, ErrIndex)
		}
	}
}
