package layerindex

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// headersTar is a tar of headers without content.
func headersTar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range headers {
		if err := w.WriteHeader(&headers[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// manyOf is a tar of n headers.
func manyOf(t testing.TB, n int, header func(i int) tar.Header) []byte {
	t.Helper()
	var list []tar.Header
	for i := range n {
		list = append(list, header(i))
	}
	return headersTar(t, list...)
}

// sparseTar is a tar of a sparse file with n extents of a byte.
func sparseTar(t testing.TB, n int) []byte {
	var m strings.Builder
	for i := range n {
		fmt.Fprintf(&m, "%d,1,", 2*i)
	}
	// archive/tar writes no sparse files: it gets the records by another name.
	records := map[string]string{"major": "0", "minor": "1", "name": "f0", "size": fmt.Sprint(2 * n), "numblocks": fmt.Sprint(n), "map": strings.TrimSuffix(m.String(), ",")}
	h := tar.Header{Name: "f0", Mode: 0o644, Size: int64(n), PAXRecords: map[string]string{}}
	for key, value := range records {
		h.PAXRecords["IMG.sparse."+key] = value
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(buf.Bytes(), []byte("IMG.sparse."), []byte("GNU.sparse."))
}

// metadataTars are tars that are hard on memory, each in its way.
func metadataTars(t testing.TB) map[string][]byte {
	long := strings.Repeat("n", 200)
	return map[string][]byte{
		"entries": manyOf(t, 1000, func(i int) tar.Header { return tar.Header{Name: fmt.Sprint("f", i)} }),
		"names": manyOf(t, 100, func(i int) tar.Header {
			return tar.Header{Name: fmt.Sprint("f", i, strings.Repeat("/"+long, 10))}
		}),
		"targets": manyOf(t, 100, func(i int) tar.Header {
			return tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint("f", i), Linkname: strings.Repeat(long, 20)}
		}),
		"attributes": manyOf(t, 20, func(i int) tar.Header {
			return tar.Header{Name: fmt.Sprint("f", i), PAXRecords: map[string]string{"SCHILY.xattr.user.a": fmt.Sprint(i, strings.Repeat("v", 50_000))}}
		}),
		"small attributes": manyOf(t, 1000, func(i int) tar.Header {
			return tar.Header{Name: fmt.Sprint("f", i), PAXRecords: map[string]string{"SCHILY.xattr.user.a": fmt.Sprint(i)}}
		}),
		"extents": sparseTar(t, 10_000),
	}
}

// TestBudget has layers that need more than is allowed, in each way that there
// is: the pass, and reading the index of one that was made when more was
// allowed, name the entry. With as much as the layer counts both work.
func TestBudget(t *testing.T) {
	for name, tarBytes := range metadataTars(t) {
		t.Run(name, func(t *testing.T) {
			blob := samples.Gzip(t, tarBytes)
			free := NewBudget(0, nil)
			x := mustBuild(t, blob, tarBytes, &buildOptions{Budget: free})
			need := free.Used()
			if need < 64*int64(x.NumEntries()) {
				t.Errorf("%d bytes for %d entries", need, x.NumEntries())
			}
			// What the scanner has in hand counts while it has it.
			exact := NewBudget(need+ExtentCost*1<<15, nil)
			mustBuild(t, blob, tarBytes, &buildOptions{Budget: exact})
			for _, limit := range []int64{1, need / 2, need - 1} {
				_, err := BuildForTest(t.Context(), claim(blob, tarBytes), bytes.NewReader(blob), &buildOptions{Budget: NewBudget(limit, nil)})
				if !errors.Is(err, ErrMetadata) || !strings.Contains(err.Error(), `entry "f`) && limit < need-1 {
					t.Errorf("Build with %d of %d bytes: %v", limit, need, err)
				}
				if errors.Is(err, ErrTar) {
					t.Errorf("Build with %d of %d bytes blames the tar: %v", limit, need, err)
				}
				if _, err := x.List(t.Context(), NewBudget(limit, nil)); !errors.Is(err, ErrMetadata) {
					t.Errorf("List with %d of %d bytes: %v", limit, need, err)
				}
			}
			listed := NewBudget(need, nil)
			if _, err := x.List(t.Context(), listed); err != nil || listed.Used() != need {
				t.Errorf("List with %d bytes: %v, %d used", need, err, listed.Used())
			}
		})
	}
}

// TestBudgetShared has two passes side by side share what is allowed.
func TestBudgetShared(t *testing.T) {
	a, b := metadataTars(t)["names"], metadataTars(t)["targets"]
	var grown []int64
	budget := NewBudget(1<<30, func(n int64) { grown = append(grown, n) })
	for _, tarBytes := range [][]byte{a, b} {
		mustBuild(t, tarBytes, tarBytes, &buildOptions{Budget: budget})
	}
	both := NewBudget(budget.Used()-1, nil)
	mustBuild(t, a, a, &buildOptions{Budget: both})
	if _, err := BuildForTest(t.Context(), claim(b, b), bytes.NewReader(b), &buildOptions{Budget: both}); !errors.Is(err, ErrMetadata) {
		t.Errorf("the second layer: %v", err)
	}
	if budget.Take(3*grownStep) != nil || len(grown) != 1 || grown[0] != budget.Used() {
		t.Errorf("told of %d, %d are used", grown, budget.Used())
	}
}

// TestBudgetPart gives back what a pass has counted that failed.
func TestBudgetPart(t *testing.T) {
	tarBytes := metadataTars(t)["extents"]
	blob := samples.Gzip(t, tarBytes)
	whole := NewBudget(1<<20, nil)
	for range 50 {
		part := whole.Part()
		l := claim(blob, tarBytes)
		l.DiffID = l.Digest
		if _, err := BuildForTest(t.Context(), l, bytes.NewReader(blob), &buildOptions{Budget: part}); !errors.Is(err, ErrDiffID) {
			t.Fatal(err)
		}
		if whole.Used() == 0 || whole.Used() != part.Used() {
			t.Fatalf("%d bytes used, of the part %d", whole.Used(), part.Used())
		}
		part.Undo()
		if whole.Used() != 0 || whole.entries.Load() != 0 {
			t.Fatalf("%d bytes and %d entries used", whole.Used(), whole.entries.Load())
		}
	}
	if err := whole.Part().Take(1<<20 + 1); !errors.Is(err, ErrMetadata) {
		t.Errorf("a part takes more than the whole: %v", err)
	}
}

// TestBudgetEndsThePass: what is refused is not read to its end.
func TestBudgetEndsThePass(t *testing.T) {
	first := manyOf(t, 10, func(i int) tar.Header { return tar.Header{Name: fmt.Sprint("f", i)} })
	src := &endlessReader{r: bytes.NewReader(first[:len(first)-1024])}
	l := claim(nil, nil)
	l.Size = MaxSize
	_, err := BuildForTest(t.Context(), l, src, &buildOptions{Budget: NewBudget(500, nil)})
	if !errors.Is(err, ErrMetadata) || !strings.Contains(err.Error(), `entry "f`) {
		t.Errorf("Build = %v", err)
	}
}

// endlessReader has tar headers without end behind what r has.
type endlessReader struct{ r io.Reader }

func (e *endlessReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err == io.EOF {
		clear(p)
		return len(p), nil
	}
	return n, err
}

// countingReaderAt counts what is read.
type countingReaderAt struct {
	io.ReaderAt
	n int64
}

func (c *countingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

// row returns the row of a section.
func row(h *indexfile.Header, kind indexfile.Kind) *indexfile.Section {
	return &h.Sections[slices.IndexFunc(h.Sections, func(s indexfile.Section) bool { return s.Kind == kind })]
}

// TestClaims has an index file that says in its header that it is too big: it
// is refused before anything behind the header is read.
func TestClaims(t *testing.T) {
	x := draftOf(t, oddEntries, true)
	for name, change := range map[string]func(*indexfile.Header){
		"entries":            func(h *indexfile.Header) { h.Entries = MaxEntries },
		"too many entries":   func(h *indexfile.Header) { h.Entries = MaxEntries + 1 },
		"length of a column": func(h *indexfile.Header) { row(h, indexfile.Entries).Raw = indexfile.MaxSection },
		"windows":            func(h *indexfile.Header) { row(h, indexfile.Windows).Stored = 1 << 40 },
		"proofs":             func(h *indexfile.Header) { h.Proofs = math.MaxUint32 },
		"checkpoints":        func(h *indexfile.Header) { h.Checkpoints = math.MaxInt64 },
	} {
		t.Run(name, func(t *testing.T) {
			src := &countingReaderAt{ReaderAt: bytes.NewReader(encoded(t, x))}
			y, err := ReadIndex(src, x.EncodedSize())
			if err != nil {
				t.Fatal(err)
			}
			change(&y.file.Header)
			src.n = 0
			_, listErr := y.List(t.Context(), NewBudget(1<<20, nil))
			for _, err := range []error{listErr, y.TakeMetadata(NewBudget(1<<20, nil))} {
				if !errors.Is(err, ErrMetadata) && !errors.Is(err, ErrEntries) || src.n > 0 {
					t.Errorf("%v after %d bytes", err, src.n)
				}
			}
		})
	}
}

// TestSizesNearMaxInt has sizes for which nothing may be added without a look.
func TestSizesNearMaxInt(t *testing.T) {
	good := draftOf(t, oddEntries, true)
	for _, size := range []int64{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 - 511, 1 << 62, 1<<60 + 1, math.MinInt64, -1} {
		l := claim(nil, nil)
		l.Size = size
		if x, err := BuildForTest(t.Context(), l, strings.NewReader("x"), nil); !errors.Is(err, ErrDigest) {
			t.Errorf("Build of a blob of %d bytes: %v, %v", size, x, err)
		}
		for _, at := range []int{88, 96, 104, 112} { // blob, tar, entries, checkpoints
			f := takeApart(t, good)
			binary.LittleEndian.PutUint64(f.head[at:], uint64(size))
			if err := readEverything(f.bytes()); err == nil || !errors.Is(err, ErrIndex) && !errors.Is(err, ErrEntries) {
				t.Errorf("header with %d at %d: %v", size, at, err)
			}
		}
	}
}

// TestSharedAttributes: entries with the same attributes have them in memory
// once.
func TestSharedAttributes(t *testing.T) {
	set := []Xattr{{"user.a", strings.Repeat("v", 1000)}, {"user.b", ""}}
	var entries []Entry
	for i := range 100 {
		entries = append(entries, Entry{Name: fmt.Sprint(i), Type: TypeDir, Xattrs: slices.Clone(set)})
	}
	x := draftOf(t, entries, false)
	if size := x.EncodedSize(); size > 3000 {
		t.Errorf("an index of %d bytes", size)
	}
	list, err := x.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var first *Xattr
	for e := range list.Drain() {
		if first == nil {
			first = &e.Xattrs[0]
		}
		if &e.Xattrs[0] != first || !slices.Equal(e.Xattrs, set) {
			t.Errorf("%s has %v at %p, the first %p", e.Name, e.Xattrs, &e.Xattrs[0], first)
		}
	}
}

// TestEmptyDigests: an index has no digests of files without content, and knows
// them. One of before, which has them, means the same.
func TestEmptyDigests(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, content := range []string{"", "x", ""} {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("f", i), Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("testdata/empty-digests.index")
	if err != nil {
		t.Fatal(err)
	}
	now := encoded(t, mustBuild(t, buf.Bytes(), buf.Bytes(), nil))
	want := [][32]byte{sha256.Sum256(nil), sha256.Sum256([]byte("x")), sha256.Sum256(nil)}
	for name, file := range map[string][]byte{"before": before, "now": now} {
		x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
		if err == nil {
			err = x.Verify(t.Context())
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		entries, err := decodedEntries(file)
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%s: %d entries, %v", name, len(entries), err)
		}
		for i, e := range entries {
			if !e.HasDigest || e.Digest != want[i] {
				t.Errorf("%s: %s has %x, %v, want %x", name, e.Name, e.Digest, e.HasDigest, want[i])
			}
		}
	}
	f := takeApart(t, mustBuild(t, buf.Bytes(), buf.Bytes(), nil))
	if n := len(f.bodies[indexfile.Digests]); n != 32 {
		t.Errorf("%d bytes of digests, want 32", n)
	}
	none := mustBuild(t, buf.Bytes(), buf.Bytes(), &buildOptions{NoDigests: true})
	entries, err := decodedEntries(encoded(t, none))
	if err != nil || entries[0].HasDigest {
		t.Errorf("without digests: %+v, %v", entries[0], err)
	}
}

// TestListingEnds: reading an index ends with its context.
func TestListingEnds(t *testing.T) {
	x := draftOf(t, oddEntries, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, listErr := x.List(ctx, nil)
	_, digestsErr := x.ListDigests(ctx)
	for what, err := range map[string]error{"List": listErr, "ListDigests": digestsErr, "CheckSums": x.CheckSums(ctx), "Verify": x.Verify(ctx)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBudgetPartOfPart counts in a part of a part, and takes both back.
func TestBudgetPartOfPart(t *testing.T) {
	whole := NewBudget(1<<20, nil)
	part := whole.Part()
	inner := part.Part()
	e := &Entry{Name: "a", Type: TypeDir}
	for _, b := range []*Budget{whole, part, inner} {
		if err := b.takeEntry(e); err != nil {
			t.Fatal(err)
		}
	}
	each := whole.Used() / 3
	if each == 0 || part.Used() != 2*each || inner.Used() != each || whole.entries.Load() != 3 {
		t.Fatalf("three entries, one in each: the whole has %d bytes and %d entries, the part %d, its part %d", whole.Used(), whole.entries.Load(), part.Used(), inner.Used())
	}
	inner.Undo()
	if whole.Used() != 2*each || part.Used() != each || whole.entries.Load() != 2 || part.entries.Load() != 1 {
		t.Errorf("after the inner part is undone: the whole has %d bytes and %d entries, the part %d and %d", whole.Used(), whole.entries.Load(), part.Used(), part.entries.Load())
	}
	part.Undo()
	if whole.Used() != each || whole.entries.Load() != 1 {
		t.Errorf("after both are undone the whole has %d bytes and %d entries, want %d and 1", whole.Used(), whole.entries.Load(), each)
	}
}
