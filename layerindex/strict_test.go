package layerindex

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// TestIndexContradicts changes an index file, with its checksums put right, to
// what docs/index-format.md does not allow. A reader refuses it.
func TestIndexContradicts(t *testing.T) {
	tarBytes := samples.Tar(t, 60_000)
	uvarints := func(vs ...uint64) (b []byte) {
		for _, v := range vs {
			b = binary.AppendUvarint(b, v)
		}
		return b
	}
	column := func(b []byte, i int) []byte { // of the checkpoints
		for ; i > 0; i-- {
			n, k := binary.Uvarint(b)
			b = b[k+int(n):]
		}
		_, k := binary.Uvarint(b)
		return b[k:]
	}
	for _, tt := range []struct {
		name   string
		change func(f *indexFile)
	}{
		{"origin that nobody knows", func(f *indexFile) { f.head[18] = 99 }},
		{"loss that nobody knows", func(f *indexFile) { f.head[19] = 0x80 }},
		{"proofs beside chunks", func(f *indexFile) { f.head[127] = 1 }},
		{"old version, header byte that is to be zero", func(f *indexFile) { f.head[8], f.head[18] = 1, 1 }},
		{"old version, header word that is to be zero", func(f *indexFile) { f.head[8], f.head[127] = 1, 1 }},
		{"flag that nobody knows", func(f *indexFile) { *f.flags(0) |= 0x80 }},
		{"sparse directory", func(f *indexFile) { *f.flags(0) = flagSparse | 5 }},
		{"digest of a directory", func(f *indexFile) { *f.flags(0) = flagDigest | 5 }},
		{"column of entries with a rest", func(f *indexFile) { f.growColumn(colMode) }},
		{"tables of entries with a rest", func(f *indexFile) { f.growColumn(colTables) }},
		{"content digest too many", func(f *indexFile) {
			f.bodies[indexfile.Digests] = append(f.bodies[indexfile.Digests], make([]byte, 32)...)
		}},
		{"first checkpoint not a start", func(f *indexFile) { column(f.bodies[indexfile.Spans], 2)[0] = 0 }},
		{"first checkpoint not at the start", func(f *indexFile) { column(f.bodies[indexfile.Spans], 0)[0] = 1 }},
		{"start inside a byte", func(f *indexFile) { column(f.bodies[indexfile.Spans], 2)[0] |= 3 }},
		{"start inside a block", func(f *indexFile) { column(f.bodies[indexfile.Spans], 3)[0] = 1 }},
		{"checkpoints with a rest", func(f *indexFile) { f.bodies[indexfile.Spans] = append(f.bodies[indexfile.Spans], 0) }},
		{"windows with a rest", func(f *indexFile) { f.bodies[indexfile.Windows] = append(f.bodies[indexfile.Windows], 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := mustBuild(t, samples.Gzip(t, tarBytes), tarBytes, &buildOptions{SpanSize: 8})
			f := takeApart(t, x)
			if err := readEverything(f.bytes()); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			tt.change(f)
			if err := readEverything(f.bytes()); !errors.Is(err, ErrIndex) {
				t.Errorf("got %v, want %v", err, ErrIndex)
			}
		})
	}

	// What is not known is passed over, and only its checksum looked at.
	f := takeApart(t, mustBuild(t, samples.Gzip(t, tarBytes), tarBytes, nil))
	f.unknown = []byte("of a later day")
	file := f.bytes()
	x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
	if err == nil {
		err = errors.Join(readEverything(file), x.Verify(t.Context()))
	}
	if err != nil {
		t.Errorf("a kind of section that is not known: %v", err)
	} else if file[len(file)-1] ^= 1; !errors.Is(x.Verify(t.Context()), ErrIndex) {
		t.Error("a kind of section that is not known: damage is not found")
	}

	for _, tt := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"two runs", append(uvarints(2, 1, 2, 1, 1), 1, 2, 3), true},
		{"all of the window", append(uvarints(1, 0, windowSize), make([]byte, windowSize)...), true},
		{"runs that touch", append(uvarints(2, 1, 2, 0, 1), 1, 2, 3), false},
		{"empty run", append(uvarints(2, 1, 2, 1, 0), 1, 2), false},
		{"run past the end", append(uvarints(1, windowSize-1, 2), 1, 2), false},
		{"too few bytes", append(uvarints(1, 1, 2), 1), false},
		{"too many bytes", append(uvarints(1, 1, 2), 1, 2, 3), false},
	} {
		if _, err := readWindow(tt.raw, 1, 0); (err == nil) != tt.ok {
			t.Errorf("window with %s: %v", tt.name, err)
		}
	}
}

// An indexFile is an index file in its parts, decoded.
type indexFile struct {
	head   []byte // the fixed part
	bodies map[indexfile.Kind][]byte
	// unknown, if not nil, is a section of a kind and encoding not known.
	unknown []byte
}

func takeApart(t testing.TB, x *Index) *indexFile {
	t.Helper()
	f := &indexFile{head: encoded(t, x)[:indexfile.FixedLen], bodies: map[indexfile.Kind][]byte{}}
	for _, s := range x.file.Sections {
		b, err := x.file.Section(s.Kind)
		if err != nil {
			t.Fatal(err)
		}
		f.bodies[s.Kind] = bytes.Clone(b)
	}
	return f
}

// bytes puts the file together, with nothing compressed and all sums right.
func (f *indexFile) bytes() []byte {
	h := indexfile.Decode(f.head, 0)
	var rest []byte
	add := func(s indexfile.Section, b []byte) {
		h.Sections = append(h.Sections, s)
		rest = append(rest, b...)
	}
	if h.Version == indexfile.Version {
		add(rawSection(indexfile.PieceSums, nil), nil)
	}
	for kind := indexfile.Entries; kind <= indexfile.DigestPieces; kind++ {
		if kind == indexfile.PieceSums {
			continue
		}
		if b, ok := f.bodies[kind]; ok {
			add(rawSection(kind, b), b)
		}
	}
	if f.unknown != nil {
		s := rawSection(77, f.unknown)
		s.Encoding, s.Raw = 9, 1<<40
		add(s, f.unknown)
	}
	if h.Version == indexfile.Version {
		pieces := make([]byte, (len(rest)+indexfile.PieceSize-1)/indexfile.PieceSize*sha256.Size)
		h.Sections[0] = rawSection(indexfile.PieceSums, pieces)
		rest = append(pieces, rest...)
	}
	off := int64(indexfile.HeaderLen(len(h.Sections)))
	for i := range h.Sections {
		h.Sections[i].Off = off
		off += h.Sections[i].Stored
	}
	file := h.Append(nil)
	copy(file[16:20], f.head[16:20])
	copy(file[124:128], f.head[124:128])
	file = append(file, rest...)
	fixSums(file)
	return file
}

// flags returns the flags of an entry.
func (f *indexFile) flags(i int) *byte {
	b := f.bodies[indexfile.Entries]
	for range numColumns {
		_, n := binary.Uvarint(b)
		b = b[n:]
	}
	return &b[i]
}

// growColumn appends a zero to a column of the entries.
func (f *indexFile) growColumn(col int) {
	b := f.bodies[indexfile.Entries]
	var out, body []byte
	var lens [numColumns]int
	for i := range lens {
		v, n := binary.Uvarint(b)
		lens[i], b = int(v), b[n:]
	}
	for i, n := range lens {
		body = append(body, b[:n]...)
		b = b[n:]
		if i == col {
			body = append(body, 0)
			n++
		}
		out = binary.AppendUvarint(out, uint64(n))
	}
	f.bodies[indexfile.Entries] = append(out, body...)
}
