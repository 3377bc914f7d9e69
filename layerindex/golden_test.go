package layerindex

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/testdata/testenv"
)

var updateGolden = flag.Bool("update-golden", false, "rewrite testdata/*.golden and the index files beside them; those of version 1 stay")

// windowOf is a window of a few runs.
func windowOf(i int) Window {
	return Window{Runs: []Run{{Off: uint16(100 * i), Len: 2}, {Off: windowSize - 1, Len: 1}}, Data: []byte{byte(i), 'a', 'b'}}
}

// tarLayer is a gzip layer in tar space, of which every entry is odd.
func tarLayer() *contentsLayer {
	l := &contentsLayer{
		entries: oddEntries,
		points:  []Checkpoint{{Start: true}},
		summary: Summary{Codec: Gzip, Blob: sha256.Sum256([]byte("blob")), BlobSize: 100_000, DiffID: sha256.Sum256([]byte("tar")), TarSize: 1 << 20},
	}
	for i := 1; i < 20; i++ {
		p := Checkpoint{In: int64(i) * 3000, Out: int64(i) * 40_000, Bit: uint8(i % 8), Window: windowOf(i)}
		switch i % 5 {
		case 0:
			p = Checkpoint{In: p.In, Out: p.Out, Start: true}
		case 1:
			p.Symbol = int64(i) * 100
		}
		l.points = append(l.points, p)
	}
	return l
}

// kindsOfIndexes are small indexes of each kind.
func kindsOfIndexes(t testing.TB) map[string]*Index {
	t.Helper()
	soci := tarLayer()
	soci.points[0] = Checkpoint{In: 10, Bit: 3}
	soci.summary.Proof, soci.summary.Origin = ProofBlob, OriginSOCI
	for i, p := range soci.points {
		end := soci.summary.BlobSize
		if i+1 < len(soci.points) {
			end = soci.points[i+1].In + int64(soci.points[i+1].Bit+7)/8
		}
		soci.proofs = append(soci.proofs, Proof{Off: p.In, Size: end - p.In, Sum: sha256.Sum256([]byte{byte(i)})})
	}
	soci.first = []Extent{{3000, 6000}, {0, 3000}}

	contents := twoFiles()
	for i := range contents.proofs {
		contents.proofs[i].Sum = sha256.Sum256([]byte{byte(i)})
	}
	contents.entries = append(slices.Clone(contents.entries), Entry{Name: "dir", Type: TypeDir, Mode: 0o755, ModSec: 1}, Entry{Name: "link", Type: TypeSymlink, Linkname: "a"})
	contents.entries[0].HasDigest, contents.entries[0].Digest = true, sha256.Sum256([]byte("a"))
	contents.summary.Losses = LossSubSecond

	pass := tarLayer()
	pass.summary.ChunkSize = 64 << 10
	var published bytes.Buffer
	if err := pass.index(t, nil).WritePublished(&published, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	far, err := ReadIndex(bytes.NewReader(published.Bytes()), int64(published.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Index{"pass": pass.index(t, nil), "published": far, "soci": soci.index(t, nil), "contents": contents.index(t, nil)}
}

// describe tells all that an index says.
func describe(t *testing.T, x *Index) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v %v of %v, losses %q, chunks of %d\n", x.Codec(), x.Space(), x.ProofKind(), x.Origin(), x.Losses(), x.ChunkSize())
	fmt.Fprintf(&b, "blob %v, %d bytes\ndiff_id %v, %d bytes\n", x.Digest(), x.BlobSize(), x.DiffID(), x.Size())
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	for e := range entries {
		fmt.Fprintln(&b, strconv.QuoteToASCII(fmt.Sprintf("%+v", *e)))
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	for i := range spans.Len() {
		p, err := spans.Checkpoint(i)
		if err != nil {
			t.Fatal(err)
		}
		out, in := spans.End(i)
		fmt.Fprintf(&b, "%+v to %d, %d\n", p, in, out)
	}
	if x.ProofKind() == ProofChunks {
		sums, err := x.ChunkSums()
		if err != nil {
			t.Fatal(err)
		}
		for sum := range slices.Chunk(sums, sha256.Size) {
			fmt.Fprintf(&b, "chunk %x\n", sum)
		}
	} else if proofs, err := x.Proofs(); err != nil {
		t.Fatal(err)
	} else {
		for _, p := range allProofs(proofs) {
			fmt.Fprintf(&b, "%d+%d %x\n", p.Off, p.Size, p.Sum)
		}
	}
	first, err := x.First()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "first %v\n", first)
	return b.String()
}

// TestGolden reads index files that this package wrote once, of each kind that there is,
// and version1.index, which the last imgfs that wrote version 1 made of tarLayer. They say
// what they said; and what is written now says the same.
func TestGolden(t *testing.T) {
	now := kindsOfIndexes(t)
	for name, x := range now {
		path := filepath.Join("testdata", name)
		if *updateGolden {
			if err := errors.Join(os.WriteFile(path+".index", encoded(t, x), 0o644), os.WriteFile(path+".golden", []byte(describe(t, x)), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want := golden(t, name)
		if got := describe(t, x); got != want {
			t.Errorf("%s, made now: got\n%s\nwant\n%s", name, got, want)
		}
		then := readGolden(t, name)
		if got := describe(t, then); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		if err := then.Verify(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := readGolden(t, "version1")
	if old.file.Version != 1 {
		t.Fatalf("version %d", old.file.Version)
	}
	if got, want := describe(t, old), golden(t, "pass"); got != want {
		t.Errorf("version 1: got\n%s\nwant\n%s", got, want)
	}
	if err := old.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if x := readGolden(t, "pass"); !x.Equal(old) || !x.SameEntries(old) || x.HeaderSum() == old.HeaderSum() {
		t.Error("version 1 is not equal to the same index of now")
	}
	for name, x := range now {
		for other, y := range now {
			if got, want := x.Equal(y), name == other; got != want {
				t.Errorf("%s and %s are equal: %v", name, other, got)
			}
		}
	}
}

func golden(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readGolden(t *testing.T, name string) *Index {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".index"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return x
}

// TestEveryBit flips each bit of an index file of each kind: each is an error by the time
// that all parts have been read.
func TestEveryBit(t *testing.T) {
	testenv.Slow(t)
	for name, x := range kindsOfIndexes(t) {
		file := encoded(t, x)
		if err := readEverything(file); err != nil {
			t.Fatal(err)
		}
		for i := range file {
			for bit := range 8 {
				file[i] ^= 1 << bit
				if err := readEverything(file); !errors.Is(err, ErrIndex) {
					t.Errorf("%s: bit %d of byte %d: %v", name, bit, i, err)
				}
				file[i] ^= 1 << bit
			}
		}
	}
}

// TestBudgetOfProofs has indexes whose checkpoints or proofs take more than is allowed.
func TestBudgetOfProofs(t *testing.T) {
	for name, x := range kindsOfIndexes(t) {
		free := NewBudget(0, nil)
		if _, err := x.List(t.Context(), free); err != nil {
			t.Fatal(err)
		}
		need := free.Used()
		windows, _ := x.file.Find(indexfile.Windows)
		if least := 48*int64(x.NumSpans()) + 48*int64(x.file.Proofs) + windows.Stored + 80*int64(x.NumEntries()); need < least {
			t.Errorf("%s counts %d bytes, want %d at least", name, need, least)
		}
		if _, err := x.List(t.Context(), NewBudget(need-1, nil)); !errors.Is(err, ErrMetadata) {
			t.Errorf("%s: List with a byte too little: %v", name, err)
		}
		if err := x.TakeMetadata(NewBudget(48*int64(x.NumSpans())+48*int64(x.file.Proofs)-1, nil)); !errors.Is(err, ErrMetadata) {
			t.Errorf("%s: TakeMetadata: %v", name, err)
		}
	}
	w := NewWriter(&WriterOptions{Budget: NewBudget(1000, nil)})
	for i := range int64(21) {
		if err := w.AddProof(Proof{Off: i, Size: 1}); (err != nil) != (i == 20) || err != nil && !errors.Is(err, ErrMetadata) {
			t.Errorf("proof %d: %v", i, err)
		}
	}
	defer w.Close()
	w = NewWriter(&WriterOptions{Budget: NewBudget(1000, nil)})
	defer w.Close()
	for i := range int64(100) {
		if err := w.AddCheckpoints([]Checkpoint{{In: i, Out: i, Start: true}}); err != nil {
			if !errors.Is(err, ErrMetadata) || i > 24 {
				t.Errorf("checkpoint %d: %v", i, err)
			}
			return
		}
	}
	t.Error("100 checkpoints in 1000 bytes")
}
