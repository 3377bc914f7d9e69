package layerindex

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// parts returns the index file of a layer in its parts. What contradicts itself stays as
// it is, since no Writer looks at it.
func (l *contentsLayer) parts(t testing.TB) *indexFile {
	t.Helper()
	h := indexfile.Header{
		Version: indexfile.Version, Codec: byte(l.summary.Codec), Space: byte(l.summary.Space), ProofKind: byte(l.summary.Proof),
		Origin: byte(l.summary.Origin), Losses: byte(l.summary.Losses), ChunkSize: uint32(l.summary.ChunkSize), Blob: l.summary.Blob, DiffID: l.summary.DiffID,
		BlobSize: l.summary.BlobSize, TarSize: l.summary.TarSize, Entries: int64(len(l.entries)), Checkpoints: int64(len(l.points)), Proofs: uint32(len(l.proofs)),
	}
	cols := &columnWriter{}
	for i := range l.entries {
		if err := cols.add(&l.entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	f := &indexFile{head: h.Append(nil)[:indexfile.FixedLen], bodies: map[indexfile.Kind][]byte{}}
	var entries column.Column
	cols.finish()
	if err := cols.moveTo(&entries); err != nil {
		t.Fatal(err)
	}
	f.bodies[indexfile.Entries] = slices.Concat(entries.Pieces...)
	f.bodies[indexfile.Digests] = slices.Concat(cols.digests.Pieces...)

	var gaps, sizes, sums []byte
	end := int64(0)
	for _, p := range l.proofs {
		gaps = binary.AppendVarint(gaps, p.Off-end)
		sizes = binary.AppendUvarint(sizes, uint64(p.Size))
		sums = append(sums, p.Sum[:]...)
		end = p.Off + p.Size
	}
	f.bodies[indexfile.Proofs] = append(append(sized(gaps), sized(sizes)...), sums...)

	var in, out, flags, symbols []byte
	var last Checkpoint
	for _, p := range l.points {
		in = binary.AppendUvarint(in, uint64(p.In-last.In))
		out = binary.AppendUvarint(out, uint64(p.Out-last.Out))
		flag := p.Bit
		if p.Start {
			flag |= spanStart
		}
		flags = append(flags, flag)
		symbols = binary.AppendUvarint(symbols, uint64(p.Symbol))
		last = p
	}
	f.bodies[indexfile.Spans] = append(slices.Concat(sized(in), sized(out), sized(flags), sized(symbols)), 0)
	if l.first != nil {
		first := firstSection(l.first)
		f.bodies[indexfile.First] = slices.Concat(first.Pieces...)
	}
	return f
}

// sized returns b behind its length.
func sized(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// twoFiles is a layer of two files in three members: 0 to 1000 and 1024 to 1524, and a
// further chunk to 2000.
func twoFiles() *contentsLayer {
	return &contentsLayer{
		entries: []Entry{{Name: "a", Type: TypeReg, Size: 1000}, {Name: "b", Type: TypeReg, Off: 1024, Size: 976}, {Name: "empty", Type: TypeReg, Off: 2048}},
		points:  []Checkpoint{{In: 10, Start: true}, {In: 20, Out: 1024, Start: true}, {In: 30, Out: 1524, Start: true}},
		proofs:  []Proof{{Size: 1000}, {Off: 1024, Size: 500}, {Off: 1524, Size: 476}},
		first:   []Extent{{10, 5}, {0, 100}},
		summary: Summary{Codec: Gzip, BlobSize: 100, TarSize: 2048, Space: SpaceContents, Proof: ProofOutput, Origin: OriginEStargz},
	}
}

// TestContentsContradict changes what an index of a table of contents says to what
// docs/index-format.md does not allow.
func TestContentsContradict(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(l *contentsLayer)
		ok     bool
	}{
		{"nothing", func(l *contentsLayer) {}, true},
		{"proof of padding", func(l *contentsLayer) { l.proofs[0].Size = 1024 }, true},
		{"no ranges to fetch first", func(l *contentsLayer) { l.first = nil }, true},
		{"more space than contents", func(l *contentsLayer) { l.summary.TarSize = 1 << 20 }, true},
		{"zstd", func(l *contentsLayer) { l.summary.Codec = Zstd }, true},
		{"a checkpoint between contents", func(l *contentsLayer) { l.points[1].Out = 1010 }, true},
		{"a proof that reaches over a checkpoint", func(l *contentsLayer) { l.proofs[1].Size, l.proofs = 976, l.proofs[:2] }, true},
		{"a checkpoint where the contents end", func(l *contentsLayer) {
			l.points = append(l.points, Checkpoint{In: 90, Out: 2048, Start: true})
		}, true},
		{"no contents", func(l *contentsLayer) {
			l.entries, l.points, l.proofs, l.summary.TarSize = nil, nil, nil, 0
		}, true},

		{"no proof of the end", func(l *contentsLayer) { l.proofs[2].Size-- }, false},
		{"no proof of the beginning", func(l *contentsLayer) { l.proofs[0].Off, l.proofs[0].Size = 1, 999 }, false},
		{"no proof of a byte between", func(l *contentsLayer) { l.proofs[1].Size-- }, false},
		{"no proof of the last content", func(l *contentsLayer) { l.proofs = l.proofs[:1] }, false},
		{"no proof at all", func(l *contentsLayer) { l.proofs = nil }, false},
		{"proofs that share a byte", func(l *contentsLayer) { l.proofs[0].Size = 1025 }, false},
		{"proofs out of order", func(l *contentsLayer) { l.proofs[0], l.proofs[1] = l.proofs[1], l.proofs[0] }, false},
		{"a proof of nothing", func(l *contentsLayer) { l.proofs[2].Size = 0 }, false},
		{"a proof that is too long", func(l *contentsLayer) { l.proofs[2].Size = 1 << 32 }, false},
		{"a proof behind the space", func(l *contentsLayer) { l.proofs[2].Size = 525 }, false},
		{"a proof before the space", func(l *contentsLayer) { l.proofs[0].Off = -1 }, false},
		{"a proof far away", func(l *contentsLayer) { l.proofs[2].Off = math.MaxInt64 - 100 }, false},
		{"a proof far before", func(l *contentsLayer) { l.proofs[2].Off = math.MinInt64 + 2000 }, false},

		{"a first checkpoint inside", func(l *contentsLayer) { l.points[0].Out = 1 }, false},
		{"checkpoints at one place of the blob", func(l *contentsLayer) { l.points[1].In = 10 }, false},
		{"checkpoints at one place of the space", func(l *contentsLayer) { l.points[1].Out = 0 }, false},
		{"checkpoints backwards in the blob", func(l *contentsLayer) { l.points[1].In = 9 }, false},
		{"checkpoints backwards in the space", func(l *contentsLayer) { l.points[2].Out = 1023 }, false},
		{"a checkpoint behind the blob", func(l *contentsLayer) { l.points[2].In = 101 }, false},
		{"a checkpoint behind the space", func(l *contentsLayer) { l.points[2].Out = 2049 }, false},
		{"a checkpoint that is no start", func(l *contentsLayer) { l.points[1].Start = false }, false},
		{"a first checkpoint that is no start", func(l *contentsLayer) { l.points[0].Start = false }, false},
		{"a start inside a byte", func(l *contentsLayer) { l.points[1].Bit = 1 }, false},
		{"a start inside a block", func(l *contentsLayer) { l.points[1].Symbol = 1 }, false},
		{"no checkpoint", func(l *contentsLayer) { l.points = nil }, false},

		{"a content behind the space", func(l *contentsLayer) { l.entries[2].Off = 2560 }, false},
		{"a content across the end of the space", func(l *contentsLayer) { l.entries[2].Size = 1 }, false},
		{"a space that ends anywhere", func(l *contentsLayer) { l.summary.TarSize++ }, false},
		{"a space too large", func(l *contentsLayer) { l.summary.TarSize = MaxSize + 512 }, false},
		{"contents of a plain tar", func(l *contentsLayer) { l.summary.Codec = Plain }, false},
		{"contents of a plain tar without contents", func(l *contentsLayer) {
			l.entries, l.points, l.proofs, l.summary = nil, nil, nil, Summary{Space: SpaceContents, Proof: ProofOutput}
		}, false},
		{"contents with proofs of the blob", func(l *contentsLayer) { l.summary.Proof = ProofBlob }, false},
		{"contents with chunks", func(l *contentsLayer) { l.summary.Proof, l.summary.ChunkSize = ProofChunks, 4096 }, false},
		{"proofs of the output in a tar", func(l *contentsLayer) { l.summary.Space = SpaceTar }, false},
		{"a space that nobody knows", func(l *contentsLayer) { l.summary.Space = 2 }, false},
		{"proofs that nobody knows", func(l *contentsLayer) { l.summary.Proof = 3 }, false},
		{"an origin that nobody knows", func(l *contentsLayer) { l.summary.Origin = 4 }, false},
		{"a loss that nobody knows", func(l *contentsLayer) { l.summary.Losses = 0x80 }, false},
		{"a chunk size without chunks", func(l *contentsLayer) { l.summary.ChunkSize = 4096 }, false},

		{"no range in a list of those to fetch first", func(l *contentsLayer) { l.first = []Extent{} }, false},
		{"an empty range to fetch first", func(l *contentsLayer) { l.first[0].Size = 0 }, false},
		{"a range to fetch first behind the blob", func(l *contentsLayer) { l.first[0].Size = 91 }, false},
		{"a range to fetch first before the blob", func(l *contentsLayer) { l.first[0].Off = -1 }, false},
		{"too many ranges to fetch first", func(l *contentsLayer) { l.first = slices.Repeat([]Extent{{0, 1}}, maxFirst+1) }, false},
	} {
		l := twoFiles()
		tt.change(l)
		err := readEverything(l.parts(t).bytes())
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestPartsContradict changes the parts of such an index.
func TestPartsContradict(t *testing.T) {
	count := func(f *indexFile, at int, by int64) { // in the header
		binary.LittleEndian.PutUint64(f.head[at:], binary.LittleEndian.Uint64(f.head[at:])+uint64(by))
	}
	proofs := func(f *indexFile, by int) { f.head[124] += byte(by) }
	grow := func(kind indexfile.Kind) func(f *indexFile) {
		return func(f *indexFile) { f.bodies[kind] = append(f.bodies[kind], 0) }
	}
	cut := func(kind indexfile.Kind, n int) func(f *indexFile) {
		return func(f *indexFile) { f.bodies[kind] = f.bodies[kind][:len(f.bodies[kind])-n] }
	}
	remove := func(kind indexfile.Kind) func(f *indexFile) {
		return func(f *indexFile) { delete(f.bodies, kind) }
	}
	for _, tt := range []struct {
		name   string
		change func(f *indexFile)
	}{
		{"an entry more in the header", func(f *indexFile) { count(f, 104, 1) }},
		{"an entry less in the header", func(f *indexFile) { count(f, 104, -1) }},
		{"a checkpoint more in the header", func(f *indexFile) { count(f, 112, 1) }},
		{"a checkpoint less in the header", func(f *indexFile) { count(f, 112, -1) }},
		{"a proof more in the header", func(f *indexFile) { proofs(f, 1) }},
		{"a proof less in the header", func(f *indexFile) { proofs(f, -1) }},
		{"proofs without end in the header", func(f *indexFile) { binary.LittleEndian.PutUint32(f.head[124:], math.MaxUint32) }},
		{"proofs with a rest", grow(indexfile.Proofs)},
		{"proofs that are cut", cut(indexfile.Proofs, 1)},
		{"a proof less", cut(indexfile.Proofs, 32)},
		{"column of proofs without end", func(f *indexFile) { f.bodies[indexfile.Proofs][0] = 0x7f }},
		{"no proofs", remove(indexfile.Proofs)},
		{"no checkpoints", remove(indexfile.Spans)},
		{"no entries", remove(indexfile.Entries)},
		{"checkpoints with a rest", grow(indexfile.Spans)},
		{"checkpoints that are cut", cut(indexfile.Spans, 1)},
		{"a batch without windows", func(f *indexFile) {
			b := f.bodies[indexfile.Spans]
			f.bodies[indexfile.Spans] = append(b[:len(b)-1], 1, 3, 0, 3)
		}},
		{"windows", func(f *indexFile) { f.bodies[indexfile.Windows] = nil }},
		{"chunk sums", func(f *indexFile) { f.bodies[indexfile.Chunks] = make([]byte, 32) }},
		{"ranges to fetch first with a rest", grow(indexfile.First)},
		{"ranges to fetch first that are cut", cut(indexfile.First, 1)},
		{"nothing in the list of what to fetch first", func(f *indexFile) { f.bodies[indexfile.First] = nil }},
		{"digests here and elsewhere", func(f *indexFile) { f.bodies[indexfile.DigestPieces] = make([]byte, 8) }},
		{"digests elsewhere, without their length", func(f *indexFile) {
			delete(f.bodies, indexfile.Digests)
			f.bodies[indexfile.DigestPieces] = make([]byte, 7)
		}},
		{"digests elsewhere, with a sum too many", func(f *indexFile) {
			delete(f.bodies, indexfile.Digests)
			f.bodies[indexfile.DigestPieces] = make([]byte, 8+32)
		}},
		{"digests elsewhere, without end", func(f *indexFile) {
			delete(f.bodies, indexfile.Digests)
			f.bodies[indexfile.DigestPieces] = binary.LittleEndian.AppendUint64(nil, math.MaxUint64)
		}},
	} {
		f := twoFiles().parts(t)
		tt.change(f)
		if err := readEverything(f.bytes()); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v, want %v", tt.name, err, ErrIndex)
		}
	}
}

// TestPiecesContradict changes the section that a file begins with.
func TestPiecesContradict(t *testing.T) {
	good := twoFiles().parts(t).bytes()
	le := binary.LittleEndian
	row := func(b []byte, i int) []byte { return b[indexfile.FixedLen+i*indexfile.RowLen:] }
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
	}{
		{"not the first section", func(b []byte) []byte {
			le.PutUint32(row(b, 0), uint32(indexfile.Entries))
			le.PutUint32(row(b, 1), uint32(indexfile.PieceSums))
			return b
		}},
		{"of another kind", func(b []byte) []byte { le.PutUint32(row(b, 0), 77); return b }},
		{"compressed", func(b []byte) []byte { le.PutUint32(row(b, 0)[4:], indexfile.Zstd); return b }},
		{"a sum too many", func(b []byte) []byte {
			n := indexfile.HeaderLen(int(le.Uint32(b[120:])))
			b = slices.Insert(b, n+32, make([]byte, 32)...)
			le.PutUint64(row(b, 0)[16:], 64)
			le.PutUint64(row(b, 0)[24:], 64)
			for i := 1; i < int(le.Uint32(b[120:])); i++ {
				le.PutUint64(row(b, i)[8:], le.Uint64(row(b, i)[8:])+32)
			}
			return b
		}},
	} {
		b := tt.change(slices.Clone(good))
		fixSums(b)
		if err := readEverything(b); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v, want %v", tt.name, err, ErrIndex)
		}
	}
	// A wrong sum, with all checksums of sections right.
	b := slices.Clone(good)
	b[indexfile.HeaderLen(int(le.Uint32(b[120:])))] ^= 1
	fixTable(b)
	if err := readEverything(b); !errors.Is(err, ErrIndex) {
		t.Errorf("a wrong sum: %v, want %v", err, ErrIndex)
	}
}

// TestAnyContents reads contents of which anything was changed: an index that is read
// has a proof of every byte of every content.
func TestAnyContents(t *testing.T) {
	read := 0
	for seed := range uint64(800) {
		rng := rand.New(rand.NewPCG(seed, 2))
		l := randomContents(rng, 6)
		if len(l.points) == 0 {
			continue
		}
		l.summary.TarSize = roundUp(l.summary.TarSize)
		change := func(n *int64) { *n += rng.Int64N(1025) - 512 }
		switch k := rng.IntN(len(l.points)); rng.IntN(5) {
		case 0:
			change(&l.proofs[rng.IntN(len(l.proofs))].Off)
		case 1:
			change(&l.proofs[rng.IntN(len(l.proofs))].Size)
		case 2:
			change(&l.points[k].Out)
		case 3:
			change(&l.points[k].In)
		}
		file := l.parts(t).bytes()
		if err := readEverything(file); err != nil {
			if !errors.Is(err, ErrIndex) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			continue
		}
		read++
		for _, e := range l.entries {
			for off := e.Off; off < e.Off+e.Size; off++ {
				if !slices.ContainsFunc(l.proofs, func(p Proof) bool { return p.Off <= off && off < p.Off+p.Size }) {
					t.Fatalf("seed %d: byte %d of %+v", seed, off, l)
				}
			}
		}
	}
	if read < 200 {
		t.Errorf("%d indexes could be read", read)
	}
}
