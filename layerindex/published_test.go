package layerindex

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
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
