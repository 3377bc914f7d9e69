package layerindex

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// oddEntries have every field at its limits.
var oddEntries = []Entry{
	{Name: "", Type: TypeDir},
	{Name: "a\xff\n/b", Type: TypeReg, Mode: 0o7777, UID: math.MaxUint32, GID: math.MaxUint32, ModSec: math.MinInt64, ModNsec: 999_999_999},
	{Name: "a\xff\n/bcd", Type: TypeReg, Size: 513, ModSec: math.MaxInt64, Off: 1024, HasDigest: true, Digest: [32]byte{1, 2, 3}},
	{Name: "a", Type: TypeSymlink, Linkname: "../x\x80"},
	{Name: "a", Type: TypeLink, Linkname: "a\xff\n/b"},
	{Name: "sparse", Type: TypeReg, Size: 1 << 50, Off: 4096, Sparse: []Extent{{0, 10}, {1 << 40, 20}, {1<<50 - 1, 1}}},
	{Name: "hole", Type: TypeReg, Size: 1 << 60, Off: 5120, Sparse: []Extent{}},
	{Name: "dev", Type: TypeChar, Major: math.MaxUint32, Minor: math.MaxUint32},
	{Name: "blk", Type: TypeBlock, Major: 1, Minor: 2, Xattrs: []Xattr{{"user.a", ""}, {"user.b", "\x00\x01"}}},
	{Name: "fifo", Type: TypeFifo, Xattrs: []Xattr{{"user.a", ""}, {"user.b", "\x00\x01"}}},
	{Name: "many", Type: TypeFifo, Xattrs: func() (xs []Xattr) {
		for i := range 40 {
			xs = append(xs, Xattr{string(rune('a' + i)), "v"})
		}
		return xs
	}()},
}

// draftOf returns an index of entries, with a tar of 1 MiB that is not there.
func draftOf(t testing.TB, entries []Entry, digests bool) *Index {
	t.Helper()
	w := NewWriter(&WriterOptions{NoDigests: !digests})
	for range 4 {
		w.AddChunk([sha256.Size]byte{})
	}
	for i := range entries {
		if err := w.AddEntry(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	x, err := w.Finish(Summary{ChunkSize: 64 << 10, BlobSize: 1 << 20, TarSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestEntriesRoundTrip(t *testing.T) {
	for _, digests := range []bool{true, false} {
		entries, err := draftOf(t, oddEntries, digests).EntriesWithDigests()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // a sequence can be had more than once
			i := 0
			for e := range entries {
				want := oddEntries[i]
				if !digests {
					want.HasDigest, want.Digest = false, [32]byte{}
				} else if want.Type == TypeReg && want.Size == 0 {
					want.HasDigest, want.Digest = true, sha256.Sum256(nil)
				}
				if !reflect.DeepEqual(*e, want) {
					t.Errorf("digests %v, entry %d: %+v, want %+v", digests, i, *e, want)
				}
				i++
			}
			if i != len(oddEntries) {
				t.Errorf("%d entries, want %d", i, len(oddEntries))
			}
		}
	}
}

func TestContaining(t *testing.T) {
	d, err := draftOf(t, oddEntries, true).List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for e := range d.Containing("/b") {
		names = append(names, e.Name)
	}
	if want := []string{"a\xff\n/b", "a\xff\n/bcd"}; !slices.Equal(names, want) {
		t.Errorf("containing: %q, want %q", names, want)
	}
	n := 0
	for e := range d.All() {
		if e.Name != oddEntries[n].Name || e.HasDigest {
			t.Errorf("entry %d: %+v", n, e)
		}
		n++
	}
	if n != len(oddEntries) {
		t.Errorf("%d entries, want %d", n, len(oddEntries))
	}
}

func encoded(t testing.TB, x *Index) []byte {
	t.Helper()
	var buf bytes.Buffer
	if n, err := x.WriteTo(&buf); err != nil || n != x.EncodedSize() {
		t.Fatalf("WriteTo = %d, %v; size %d", n, err, x.EncodedSize())
	}
	return buf.Bytes()
}

// readEverything reads all parts of an index file.
func readEverything(b []byte) error {
	x, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	entries, err := x.EntriesWithDigests()
	if err != nil {
		return err
	}
	for range entries {
	}
	if _, err := x.file.Section(indexfile.PieceSums); x.file.Version == indexfile.Version && err != nil {
		return err
	}
	if err := x.verifyProofs(); err != nil {
		return err
	}
	if x.Codec() == Plain {
		return nil
	}
	spans, err := x.Spans()
	if err != nil {
		return err
	}
	for i := range spans.Len() {
		if _, err := spans.Checkpoint(i); err != nil {
			return err
		}
	}
	return nil
}

// TestIndexDamage cuts an index file at every byte and flips a bit of every
// byte: each is noticed by the time that all parts have been read.
func TestIndexDamage(t *testing.T) {
	tarBytes := samples.Tar(t, 20_000)
	good := encoded(t, mustBuild(t, samples.Gzip(t, tarBytes), tarBytes, &buildOptions{SpanSize: 4096}))
	if err := readEverything(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if err := readEverything(good[:i]); !errors.Is(err, ErrIndex) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
		// Content digests are read with the entries, so nothing is left out.
		if err := readEverything(flip(good, i)); !errors.Is(err, ErrIndex) {
			t.Errorf("flipped bit in byte %d: %v", i, err)
		}
	}
}

// FuzzReadIndex reads index files of each kind of which a section and the counts in the
// header are anything, with checksums that hold: it ends, and never with anything but an
// index, or an error about it.
func FuzzReadIndex(f *testing.F) {
	tarBytes := samples.Tar(f, 3000)
	forms := []*Index{mustBuild(f, samples.Gzip(f, tarBytes), tarBytes, &buildOptions{SpanSize: 1000}), draftOf(f, oddEntries, true)}
	kinds := kindsOfIndexes(f)
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		forms = append(forms, kinds[name])
	}
	for i, x := range forms {
		for kind, b := range takeApart(f, x).bodies {
			f.Add(uint8(i), uint8(kind), b, int64(x.NumEntries()), x.file.Checkpoints, x.file.Proofs)
			f.Add(uint8(i), uint8(kind), b[:len(b)/2], int64(x.NumEntries()), x.file.Checkpoints, x.file.Proofs)
		}
	}
	for _, n := range []int64{math.MaxInt64, math.MaxInt64 - 511, 1 << 62, -1, math.MinInt64} {
		for i := range forms {
			odd := binary.AppendUvarint([]byte{10, 10, 1}, uint64(n))
			f.Add(uint8(i), uint8(indexfile.Entries), odd, n, int64(1), uint32(n))
			f.Add(uint8(i), uint8(indexfile.Spans), odd, int64(1), n, uint32(n))
			f.Add(uint8(i), uint8(indexfile.Proofs), odd, int64(1), int64(1), uint32(n))
		}
	}
	f.Fuzz(func(t *testing.T, form, kind uint8, section []byte, entries, points int64, proofs uint32) {
		file := takeApart(t, forms[int(form)%len(forms)])
		if kind != uint8(indexfile.PieceSums) {
			file.bodies[indexfile.Kind(kind)] = section
		}
		binary.LittleEndian.PutUint64(file.head[104:], uint64(entries))
		binary.LittleEndian.PutUint64(file.head[112:], uint64(points))
		binary.LittleEndian.PutUint32(file.head[124:], proofs)
		b := file.bytes()
		x, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			var d *Listing
			if d, err = x.List(t.Context(), NewBudget(1<<20, nil)); err == nil {
				for range d.Drain() {
				}
				err = d.Err()
			}
		}
		if err == nil {
			err = readEverything(b)
		}
		if err != nil && !errors.Is(err, ErrIndex) && !errors.Is(err, ErrMetadata) && !errors.Is(err, ErrEntries) {
			t.Error(err)
		}
	})
}

func TestWriteToFails(t *testing.T) {
	x := draftOf(t, oddEntries, true)
	r, w := io.Pipe()
	r.Close()
	if _, err := x.WriteTo(w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("WriteTo = %v", err)
	}
}

// rawSection is the table row of a section that is alone in its file.
func rawSection(kind indexfile.Kind, b []byte) indexfile.Section {
	return indexfile.Section{Kind: kind, Stored: int64(len(b)), Raw: int64(len(b)), Sum: sha256.Sum256(b)}
}

// TestVerify notices every flipped bit, also of an index that was read from
// before.
func TestVerify(t *testing.T) {
	for _, c := range samples.Codecs {
		t.Run(c.Name, func(t *testing.T) {
			tarBytes := samples.Tar(t, 10_000)
			file := encoded(t, mustBuild(t, c.Wrap(t, tarBytes), tarBytes, &buildOptions{SpanSize: 2048}))
			x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(readEverything(file), x.Verify(t.Context())); err != nil {
				t.Fatal(err)
			}
			for i := range file {
				file[i] ^= 1
				if err := x.Verify(t.Context()); !errors.Is(err, ErrIndex) {
					t.Errorf("flipped bit in byte %d: %v", i, err)
				}
				file[i] ^= 1
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 0x10
	return b
}
