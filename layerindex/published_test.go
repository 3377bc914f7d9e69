package layerindex

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// publishedForms are an index, in memory and as files of both versions, that is to be
// published.
func publishedForms(t *testing.T, x *Index) map[string]*Index {
	t.Helper()
	open := func(file []byte) *Index {
		y, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		return y
	}
	return map[string]*Index{"in memory": x, "from a file": open(encoded(t, x)), "of the old version": open(oldVersion(t, x))}
}

// oldVersion returns the file of an index as version 1 of the format has it.
func oldVersion(t testing.TB, x *Index) []byte {
	t.Helper()
	h := x.file.Header
	h.Version = 1
	h.Sections = nil
	var body []byte
	for _, kind := range []indexfile.Kind{indexfile.Entries, indexfile.Chunks, indexfile.Spans, indexfile.Windows, indexfile.Digests} {
		if s, ok := x.file.Find(kind); ok {
			b := make([]byte, s.Stored)
			if _, err := x.file.Src.ReadAt(b, s.Off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			h.Sections = append(h.Sections, s)
			body = append(body, b...)
		}
	}
	off := int64(indexfile.HeaderLen(len(h.Sections)))
	for i := range h.Sections {
		h.Sections[i].Off = off
		off += h.Sections[i].Stored
	}
	return append(h.Append(nil), body...)
}

// TestPublished publishes an index, and reads it from far away: entries, spans and
// digests are the same, and what is read is checked.
func TestPublished(t *testing.T) {
	tarBytes := samples.Tar(t, 400_000)
	for _, c := range samples.Codecs {
		t.Run(c.Name, func(t *testing.T) {
			blob := c.Wrap(t, bytes.Clone(tarBytes))
			x := mustBuild(t, blob, tarBytes, &buildOptions{SpanSize: 1 << 14})
			var first []byte
			for name, form := range publishedForms(t, x) {
				var file, digests bytes.Buffer
				if err := form.WritePublished(&file, &digests); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if first == nil {
					first = file.Bytes()
				}
				if !bytes.Equal(file.Bytes(), first) {
					t.Errorf("%s: other bytes are published", name)
				}
				y, err := OpenPublished(bytes.NewReader(file.Bytes()), int64(file.Len()), bytes.NewReader(digests.Bytes()), nil)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := errors.Join(y.Verify(t.Context()), y.CheckSums(t.Context())); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				sameReads(t, y, x, blob, tarBytes)
				if !y.SameEntries(x) || y.Equal(x) {
					t.Errorf("%s: same entries %v, equal %v", name, y.SameEntries(x), y.Equal(x))
				}
			}
		})
	}
}

// sameReads compares what two indexes of a blob say.
func sameReads(t *testing.T, got, want *Index, blob, tarBytes []byte) {
	t.Helper()
	list := func(x *Index) (all []Entry) {
		seq, err := x.EntriesWithDigests()
		if err != nil {
			t.Fatal(err)
		}
		for e := range seq {
			own := *e
			own.Xattrs, own.Sparse = slices.Clone(e.Xattrs), slices.Clone(e.Sparse)
			all = append(all, own)
		}
		return all
	}
	a, b := list(got), list(want)
	compareEntries(t, a, b)
	if len(a) != len(b) || len(a) == 0 {
		t.Errorf("%d entries, want %d", len(a), len(b))
	}
	listing, err := got.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for n, e := range listing.Numbered() {
		if sum, err := got.ContentDigest(n); b[i].HasDigest && b[i].Size > 0 && (err != nil || sum != b[i].Digest) {
			t.Errorf("digest %d of %s: %x, %v, want %x", n, e.Name, sum, err, b[i].Digest)
		} else if n < 0 && !errors.Is(err, ErrIndex) {
			t.Errorf("digest %d: %v", n, err)
		}
		i++
	}
	if _, err := got.ContentDigest(len(b)); !errors.Is(err, ErrIndex) {
		t.Errorf("a digest too many: %v", err)
	}
	r := ReaderForTest(got, blob)
	defer r.Close()
	p := make([]byte, 1000)
	for off := 0; off+len(p) < len(tarBytes); off += 30_000 {
		if _, err := r.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, tarBytes[off:off+len(p)]) {
			t.Fatalf("at %d: other bytes, %v", off, err)
		}
	}
}

// TestPublishedDamage flips each byte of what was published. All are found by the time
// that everything was read, and no read from far away is of other bytes.
func TestPublishedDamage(t *testing.T) {
	tarBytes := samples.Tar(t, 30_000)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, &buildOptions{SpanSize: 4096})
	var file, digests bytes.Buffer
	if err := x.WritePublished(&file, &digests); err != nil {
		t.Fatal(err)
	}
	read := func(file, digests []byte) error {
		y, err := OpenPublished(bytes.NewReader(file), int64(len(file)), bytes.NewReader(digests), nil)
		if err != nil {
			return err
		}
		if err := y.Verify(t.Context()); err != nil {
			return err
		}
		return readEverything(file)
	}
	if err := read(file.Bytes(), digests.Bytes()); err != nil {
		t.Fatal(err)
	}
	for i := range file.Len() {
		if err := read(flip(file.Bytes(), i), digests.Bytes()); !errors.Is(err, ErrIndex) {
			t.Errorf("flipped bit in byte %d: %v", i, err)
		}
	}
	for i := range digests.Len() {
		bad := flip(digests.Bytes(), i)
		if err := read(file.Bytes(), bad); !errors.Is(err, ErrIndex) {
			t.Errorf("flipped bit in byte %d of the digests: %v", i, err)
		}
		y, err := OpenPublished(bytes.NewReader(file.Bytes()), int64(file.Len()), bytes.NewReader(bad), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := y.ContentDigest(i / sha256.Size); !errors.Is(err, ErrIndex) {
			t.Errorf("flipped bit in byte %d of the digests: %v", i, err)
		}
	}
	if err := read(file.Bytes(), digests.Bytes()[:digests.Len()-1]); !errors.Is(err, ErrIndex) {
		t.Errorf("digests that are cut: %v", err)
	}
}

// TestPublishedWithout publishes an index without digests, and reads one whose digests
// cannot be had.
func TestPublishedWithout(t *testing.T) {
	tarBytes := samples.Tar(t, 30_000)
	var digests bytes.Buffer
	for _, none := range []bool{true, false} {
		var file bytes.Buffer
		x := mustBuild(t, tarBytes, tarBytes, &buildOptions{NoDigests: none})
		if err := x.WritePublished(&file, &digests); err != nil {
			t.Fatal(err)
		}
		y, err := OpenPublished(bytes.NewReader(file.Bytes()), int64(file.Len()), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if y.HasDigests() || y.HasDigestPieces() == none || (digests.Len() == 0) != none {
			t.Errorf("none %v: digests %v, pieces of digests %v, %d bytes", none, y.HasDigests(), y.HasDigestPieces(), digests.Len())
		}
		if _, err := y.ContentDigest(0); !errors.Is(err, ErrIndex) {
			t.Errorf("ContentDigest: %v", err)
		}
		if err := y.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	}
	old := oldVersion(t, mustBuild(t, tarBytes, tarBytes, nil))
	if _, err := OpenPublished(bytes.NewReader(old), int64(len(old)), nil, nil); !errors.Is(err, ErrIndex) {
		t.Errorf("an index of the old version: %v", err)
	}
}

// TestPublishedRanges reads single windows and digests of an index far away: only the
// pieces that hold them are asked for.
func TestPublishedRanges(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 3<<20)
	blob := samples.Gzip(t, tarBytes)
	x := mustBuild(t, blob, tarBytes, &buildOptions{SpanSize: 4096})
	var file, digests bytes.Buffer
	if err := x.WritePublished(&file, &digests); err != nil {
		t.Fatal(err)
	}
	src := &countingReaderAt{ReaderAt: bytes.NewReader(file.Bytes())}
	y, err := OpenPublished(src, int64(file.Len()), bytes.NewReader(digests.Bytes()), nil)
	if err != nil {
		t.Fatal(err)
	}
	spans, err := y.Spans()
	if err == nil {
		_, err = y.Pieces()
	}
	if err != nil {
		t.Fatal(err)
	}
	windows, _ := y.file.Find(indexfile.Windows)
	if windows.Stored < 4*indexfile.PieceSize {
		t.Fatalf("%d bytes of windows", windows.Stored)
	}
	src.n = 0
	if p, err := spans.Checkpoint(spans.Len() - 1); err != nil || p.Start {
		t.Fatalf("the last checkpoint: %+v, %v", p, err)
	}
	if src.n == 0 || src.n > 2*indexfile.PieceSize {
		t.Errorf("%d bytes read for a window, there are %d bytes of them", src.n, windows.Stored)
	}
}

// failingReaderAt fails after some reads, as long as it is to.
type failingReaderAt struct {
	io.ReaderAt
	left int
	err  error
}

func (f *failingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestPublishedUnreachable: that an index far away cannot be read does not mean that it is
// wrong, whatever is read of it and however far that got. What ends too early is wrong.
func TestPublishedUnreachable(t *testing.T) {
	testenv.Slow(t)
	l := tarLayer()
	l.summary.ChunkSize = 64 << 10
	var entries []Entry
	for i := range 30_000 { // more than is read in one piece
		sum := sha256.Sum256(fmt.Append(nil, i))
		entries = append(entries, Entry{Name: fmt.Sprintf("%x%x", sum, sum), Type: TypeReg, Size: 1, Off: int64(i) * 512, HasDigest: true, Digest: sum})
	}
	l.entries, l.summary.TarSize = entries, 30_000*512
	var file, digests bytes.Buffer
	if err := l.index(t, nil).WritePublished(&file, &digests); err != nil {
		t.Fatal(err)
	}
	uses := map[string]func(x *Index) error{
		"List":        func(x *Index) error { _, err := x.List(t.Context(), nil); return err },
		"ListDigests": func(x *Index) error { _, err := x.ListDigests(t.Context()); return err },
		"digests while listing": func(x *Index) error {
			d, err := x.List(t.Context(), nil)
			if err != nil {
				return err
			}
			d.digests = func() (*indexfile.SectionReader, error) { return x.openDigests(t.Context(), d.flagged) }
			for range d.All() {
			}
			return d.Err()
		},
		"ChunkSums":     func(x *Index) error { _, err := x.ChunkSums(); return err },
		"ContentDigest": func(x *Index) error { _, err := x.ContentDigest(29_999); return err },
		"Verify":        func(x *Index) error { return x.Verify(t.Context()) },
		"CheckSums":     func(x *Index) error { return x.CheckSums(t.Context()) },
		"Checkpoint": func(x *Index) error {
			s, err := x.Spans()
			if err == nil {
				_, err = s.Checkpoint(4)
			}
			return err
		},
	}
	unreachable := errors.New("no route to host")
	for name, use := range uses {
		for _, cause := range []error{unreachable, io.EOF} {
			failed := 0
			for reads := 0; ; reads += 1 + reads {
				index := &failingReaderAt{bytes.NewReader(file.Bytes()), 1 << 30, cause}
				far := &failingReaderAt{bytes.NewReader(digests.Bytes()), reads, cause}
				x, err := OpenPublished(index, int64(file.Len()), far, nil)
				if err != nil {
					t.Fatal(err)
				}
				index.left = reads
				err = use(x)
				if err == nil {
					break
				}
				failed++
				if wrong := cause == io.EOF; errors.Is(err, ErrIndex) != wrong || !wrong && !errors.Is(err, unreachable) {
					t.Errorf("%s, %v after %d reads: %v", name, cause, reads, err)
				}
			}
			if failed == 0 {
				t.Errorf("%s: never failed", name)
			}
		}
	}
	for left := range 2 {
		if _, err := OpenPublished(&failingReaderAt{bytes.NewReader(file.Bytes()), left, unreachable}, int64(file.Len()), nil, nil); errors.Is(err, ErrIndex) || !errors.Is(err, unreachable) {
			t.Errorf("OpenPublished after %d reads: %v", left, err)
		}
	}
}
