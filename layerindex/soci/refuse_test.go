package soci

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// point returns a checkpoint of a gzip ztoc, to be written over.
func (d *doc) point(i int) (in, out, bits []byte) {
	p := d.points[pointsHeader+i*pointSize:]
	return p[:8], p[8:16], p[16:17]
}

func add(p []byte, n int64) {
	binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)+uint64(n))
}

// TestIndexRefuses: a ztoc that contradicts itself, its layer or a tar gives an error
// that says how, and never an index.
func TestIndexRefuses(t *testing.T) {
	t.Parallel()
	fixed := fixtures(t)
	gz, plain := fixed[0], fixed[2]
	for _, c := range []struct {
		name   string
		plain  bool
		change func(d *doc)
		want   string
	}{
		{"version", false, func(d *doc) { d.version = "1.0" }, `version "1.0"`},
		{"no version", false, func(d *doc) { d.version = "" }, `version ""`},
		{"another layer", false, func(d *doc) { d.blobSize++ }, "of a layer of"},
		{"negative blob size", false, func(d *doc) { d.blobSize = -1 }, "out of range"},
		{"negative tar size", false, func(d *doc) { d.tarSize = -1 }, "out of range"},
		{"tar size of 2^62", false, func(d *doc) { d.tarSize = 1 << 62 }, "out of range"},
		{"tar size before the last content", false, func(d *doc) { d.tarSize = 4096 }, `entry 4, "d/3"`},
		{"tar size beyond what the blob can give", false, func(d *doc) { d.tarSize = 1 << 40 }, "decode to"},
		{"algorithm 3", false, func(d *doc) { d.algorithm = 3 }, "algorithm 3"},
		{"algorithm 0", false, func(d *doc) { d.algorithm = 0 }, "algorithm 0"},
		{"gzip said to be plain", false, func(d *doc) { d.algorithm = algorithmPlain }, "plain tar"},
		{"plain said to be gzip", true, func(d *doc) { d.algorithm = algorithmGzip }, "checkpoints"},

		{"a digest too few", false, func(d *doc) { d.sums = d.sums[1:] }, "span digests"},
		{"a digest too many", false, func(d *doc) { d.sums = append(d.sums, d.sums[0]) }, "span digests"},
		{"no digests", false, func(d *doc) { d.sums, d.maxSpan = nil, -1 }, "checkpoints in"},
		{"a span too few", false, func(d *doc) { d.sums, d.maxSpan = d.sums[1:], d.maxSpan-1 }, "checkpoints in"},
		{"a span too many", true, func(d *doc) { d.sums, d.maxSpan = append(d.sums, d.sums[0]), d.maxSpan+1 }, "plain tar"},
		{"max span of 2^31-1", false, func(d *doc) { d.maxSpan = math.MaxInt32 }, "span digests"},
		{"digests that are one", false, func(d *doc) { d.sums, d.maxSpan = make([]string, 1<<20), 1<<20-1 }, "span digests"},
		{"max span below zero", false, func(d *doc) { d.maxSpan = -2 }, "span digests"},
		{"sha512", false, func(d *doc) { d.sums[0] = "sha512:" + strings.Repeat("0", 128) }, "of span 0"},
		{"a digest of another length", false, func(d *doc) { d.sums[1] = d.sums[1][:70] }, "of span 1"},
		{"a digest that is none", false, func(d *doc) { d.sums[1] = "sha256:" + strings.Repeat("z", 64) }, "of span 1"},

		{"no checkpoints", false, func(d *doc) { d.points = nil }, "checkpoints of 0 bytes"},
		{"a byte too many", false, func(d *doc) { d.points = append(d.points, 0) }, "checkpoints in"},
		{"half of them", false, func(d *doc) { d.points = d.points[:len(d.points)/2] }, "checkpoints in"},
		{"2^31 of them", false, func(d *doc) { binary.LittleEndian.PutUint32(d.points, 1<<31) }, "checkpoints in"},
		{"first not at byte 0", false, func(d *doc) { _, out, _ := d.point(0); add(out, 1) }, "first checkpoint"},
		{"first in the header", false, func(d *doc) { in, _, _ := d.point(0); binary.LittleEndian.PutUint64(in, 9) }, "first checkpoint"},
		{"bits 8", false, func(d *doc) { _, _, bits := d.point(1); bits[0] = 8 }, "checkpoint 1"},
		{"in 0", false, func(d *doc) { in, _, _ := d.point(1); clear(in) }, "checkpoint 1"},
		{"in 2^63", false, func(d *doc) { in, _, _ := d.point(1); binary.LittleEndian.PutUint64(in, 1<<63) }, "checkpoint 1"},
		{"out 2^63", false, func(d *doc) { _, out, _ := d.point(1); binary.LittleEndian.PutUint64(out, 1<<63) }, "checkpoint 1"},
		{"in goes back", false, func(d *doc) { in, _, _ := d.point(2); binary.LittleEndian.PutUint64(in, 20) }, "checkpoint 2"},
		{"out goes back", false, func(d *doc) { _, out, _ := d.point(2); binary.LittleEndian.PutUint64(out, 1) }, "checkpoint 2"},
		{"in behind the blob", false, func(d *doc) { in, _, _ := d.point(len(d.sums) - 1); add(in, 1<<20) }, "span"},
		{"out beyond what the blob can give", false, func(d *doc) { _, out, _ := d.point(1); add(out, 1<<30) }, "decode to"},

		{"plain: span size 0", true, func(d *doc) { d.points = tarInfo(tarInfoVersion, 0, d.blobSize) }, "spans of 0"},
		{"plain: span size below 0", true, func(d *doc) { d.points = tarInfo(tarInfoVersion, -4096, d.blobSize) }, "spans of -4096"},
		{"plain: span size 1", true, func(d *doc) { d.points = tarInfo(tarInfoVersion, 1, d.blobSize) }, "spans of 1"},
		{"plain: span size 2^62", true, func(d *doc) { d.points = tarInfo(tarInfoVersion, 1<<62, d.blobSize) }, "spans of"},
		{"plain: another size", true, func(d *doc) { d.points = tarInfo(tarInfoVersion, 4096, d.blobSize-1) }, "plain tar of"},
		{"plain: version 3", true, func(d *doc) { d.points = tarInfo(3, 4096, d.blobSize) }, "version 3"},
		{"plain: nothing", true, func(d *doc) { d.points = nil }, "plain tar"},

		{"type", false, func(d *doc) { d.entries[1].kind = "socket" }, `unknown type "socket"`},
		{"no type", false, func(d *doc) { d.entries[1].kind = "" }, "unknown type"},
		{"offset that is no block", false, func(d *doc) { d.entries[1].off++ }, "behind an entry"},
		{"negative offset", false, func(d *doc) { d.entries[1].off = -512 }, "behind an entry"},
		{"contents that overlap", false, func(d *doc) { d.entries[4].off = d.entries[3].off }, "behind an entry"},
		{"no room for a header", false, func(d *doc) { d.entries[4].off -= 512 }, "behind an entry"},
		{"first without a header", false, func(d *doc) { d.entries[0].off = 0 }, "behind an entry"},
		{"content over the next header", false, func(d *doc) { d.entries[3].size += 512 }, "behind an entry"},
		{"negative size", false, func(d *doc) { d.entries[3].size = -1 }, "-1 bytes"},
		{"size of 2^63-1", false, func(d *doc) { d.entries[3].size = math.MaxInt64 }, "bytes at"},
		{"entries in another order", false, func(d *doc) { d.entries[3], d.entries[4] = d.entries[4], d.entries[3] }, "behind an entry"},
		{"the same entry twice", false, func(d *doc) { d.entries = slices.Insert(d.entries, 3, d.entries[3]) }, "behind an entry"},
		{"device number", false, func(d *doc) { d.find(t, "d/null").major = 1 << 32 }, "device number"},
		{"negative device number", false, func(d *doc) { d.find(t, "d/null").minor = -1 }, "device number"},
		{"NUL in a name", false, func(d *doc) { d.entries[1].name = "a\x00b" }, "NUL"},
		{"long part of a name", false, func(d *doc) { d.entries[1].name = strings.Repeat("n", 256) }, "over 255 bytes"},
		{"long target", false, func(d *doc) { d.find(t, "d/sym").link = strings.Repeat("n", 4096) }, "link target of 4096"},
		{"time", false, func(d *doc) { d.entries[1].at = "yesterday" }, `time "yesterday"`},
		{"attribute twice", false, func(d *doc) {
			e := d.find(t, "d/attr")
			e.records = append(e.records, e.records[0])
		}, "comes twice"},
		{"records of 2 MiB", false, func(d *doc) { d.entries[1].records = [][2]string{{"a", strings.Repeat("x", 2<<20)}} }, "pax records of more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := gz
			if c.plain {
				s = plain
			}
			d := takeApart(t, s.ztoc)
			if _, err := Index(context.Background(), s.layer(), d.putTogether(), nil); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			c.change(d)
			_, err := Index(context.Background(), s.layer(), d.putTogether(), nil)
			if !errors.Is(err, layerindex.ErrIndex) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want ErrIndex with %q", err, c.want)
			}
		})
	}
}

// tarInfo is what a ztoc of a plain tar has for checkpoints.
func tarInfo(version int32, step, size int64) []byte {
	l := plainLayer{step: step, n: size}
	_, b, _ := l.spans()
	// The version is the only field of four bytes.
	at := bytes.Index(b, []byte{tarInfoVersion, 0, 0, 0})
	binary.LittleEndian.PutUint32(b[at:], uint32(version))
	return b
}

// TestIndexLossy: what a ztoc does not tell is not taken for what the layer has.
func TestIndexLossy(t *testing.T) {
	t.Parallel()
	s := fixtures(t)[0]
	for name, change := range map[string]func(e *docEntry){
		"sparse":            func(e *docEntry) { e.records = [][2]string{{"GNU.sparse.major", "1"}} },
		"sparse, old":       func(e *docEntry) { e.records = [][2]string{{"GNU.sparse.map", "0,1"}} },
		"year 10000":        func(e *docEntry) { e.at = "" },
		"local mean time":   func(e *docEntry) { e.at = "1880-01-01T00:53:28+00:53" },
		"sparse, elsewhere": func(e *docEntry) { e.records, e.off = [][2]string{{"GNU.sparse.size", "9"}}, e.off+512 },
	} {
		d := takeApart(t, s.ztoc)
		change(d.find(t, "d/3"))
		if _, err := Index(context.Background(), s.layer(), d.putTogether(), nil); !errors.Is(err, layerindex.ErrLossy) || errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s: %v, want ErrLossy", name, err)
		}
	}
}

// TestIndexBounds: what takes too much is refused, and a context is looked at.
func TestIndexBounds(t *testing.T) {
	t.Parallel()
	s := fixtures(t)[0]
	index := func(ctx context.Context, z []byte, o *Options) error {
		_, err := Index(ctx, s.layer(), z, o)
		return err
	}
	if err := index(context.Background(), s.ztoc, &Options{MaxSize: int64(len(s.tar))}); err != nil {
		t.Error(err)
	}
	if err := index(context.Background(), s.ztoc, &Options{MaxSize: 10000}); !errors.Is(err, layerindex.ErrTooBig) {
		t.Errorf("%v, want ErrTooBig", err)
	}
	for _, limit := range []int64{100, 1000} { // less than spans take, and than entries do
		b := layerindex.NewBudget(limit, nil)
		if err := index(context.Background(), s.ztoc, &Options{Budget: b.Part()}); !errors.Is(err, layerindex.ErrMetadata) {
			t.Errorf("%v, want ErrMetadata", err)
		}
	}
	counted := func(z []byte) int64 {
		b := layerindex.NewBudget(0, nil)
		if err := index(context.Background(), z, &Options{Budget: b}); err != nil {
			t.Error(err)
		}
		return b.Used()
	}
	if n := counted(s.ztoc); n < 16*80 || n > 100_000 {
		t.Errorf("it counts %d bytes", n)
	}
	if err := index(context.Background(), make([]byte, MaxZtoc+1), nil); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("%v, want ErrIndex", err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := index(ended, s.ztoc, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
	l := s.layer()
	l.DiffID = "sha512:" + digest.Digest(strings.Repeat("0", 128))
	if _, err := Index(context.Background(), l, s.ztoc, nil); err == nil {
		t.Error("a sha512 diff_id is taken")
	}
}

// TestIndexVariants: what SOCI's other versions and other builders write is read.
func TestIndexVariants(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	tar := writeTar(t, 200_000, 3)
	s := &sample{name: "variants", blob: member(t, tar, "", 9000), tar: tar}
	var err error
	if s.ztoc, err = Build(context.Background(), s.layer(), bytes.NewReader(s.blob), &BuildOptions{SpanSize: 50_000}); err != nil {
		t.Fatal(err)
	}
	want := entriesOf(t, s.pass(t))
	for name, change := range map[string]func(d *doc){
		"as it is":              func(*doc) {},
		"first checkpoint left": func(d *doc) { d.points = slices.Delete(d.points, pointsHeader, pointsHeader+pointSize) },
		"other time zones": func(d *doc) {
			for i := range d.entries {
				e := &d.entries[i]
				e.at = strings.ReplaceAll(e.at, "2023-11-14T22:13:20Z", "2023-11-15T03:58:20+05:45")
			}
		},
		"records in no order":      func(d *doc) { slices.Reverse(d.find(t, "d/attr").records) },
		"sizes of what is no file": func(d *doc) { d.find(t, "d/null").size, d.entries[0].size = 1<<40, 1 },
		"a link of what is none":   func(d *doc) { d.entries[1].link = "elsewhere" },
		"mode with a type":         func(d *doc) { d.entries[1].mode |= 0o100000 },
	} {
		d := takeApart(t, s.ztoc)
		change(d)
		v := *s
		v.ztoc = d.putTogether()
		x, err := Index(context.Background(), v.layer(), v.ztoc, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := entriesOf(t, x); len(got) != len(want) {
			t.Errorf("%s: %d entries", name, len(got))
		}
		checkEntries(t, x, v.pass(t))
		v.checkContent(t, x)
	}
}

// TestIndexMerges: of checkpoints for the same byte the first is in the index, and none
// behind the tar's end; the proofs are all there.
func TestIndexMerges(t *testing.T) {
	t.Parallel()
	s := fixtures(t)[1]
	z := mustOpen(t, s.ztoc)
	if z.spans[0].point.Out != 0 || z.spans[1].point.Out != 0 || z.spans[2].point.Out == 0 {
		t.Fatalf("checkpoints for %d, %d, %d", z.spans[0].point.Out, z.spans[1].point.Out, z.spans[2].point.Out)
	}
	x := s.index(t)
	proofs, err := x.Proofs()
	if err != nil {
		t.Fatal(err)
	}
	// The last is in the padding behind the end blocks.
	if last := z.spans[len(z.spans)-1].point.Out; last < z.tarSize || x.NumSpans() != len(z.spans)-2 || proofs.Len() != len(z.spans) {
		t.Errorf("%d spans and %d proofs of %d", x.NumSpans(), proofs.Len(), len(z.spans))
	}
	s.checkContent(t, x)
}

// TestIndexSharedParts: a ztoc whose parts are the same bytes again and again is not
// read for long.
func TestIndexSharedParts(t *testing.T) {
	t.Parallel()
	// A vector of 2^18 entries, all of them the same one, which has a name of 64 KiB.
	d := &doc{version: version, entries: []docEntry{{name: strings.Repeat("n", 64<<10), kind: "dir", off: 512}}}
	b := d.putTogether()
	const n = 1 << 18
	f := newBuffer(b)
	vector := f.root().table(ztocTOC).vector(tocEntries)
	entry := f.follow(vector.pos)
	// The new vector is behind the rest, and its distances lead back around 2^32: they
	// cannot, so the table is copied behind it.
	toc, _ := f.root().table(ztocTOC).field(tocEntries)
	at := int64(len(b)+3) &^ 3
	b = append(b, make([]byte, at-int64(len(b)))...)
	binary.LittleEndian.PutUint32(b[toc:], uint32(at-toc))
	b = binary.LittleEndian.AppendUint32(b, n)
	behind := at + 4 + 4*n
	for i := range int64(n) {
		b = binary.LittleEndian.AppendUint32(b, uint32(behind-(at+4+4*i)))
	}
	list := entry - int64(int32(binary.LittleEndian.Uint32(b[entry:])))
	size := int64(binary.LittleEndian.Uint16(b[list+2:]))
	moved := append([]byte(nil), b[entry:entry+size]...)
	binary.LittleEndian.PutUint32(moved, uint32(int32(behind-list)))
	// Its strings are moved behind it, too: the name is all that counts.
	for _, field := range []int64{entryType, entryLink, entryUser, entryGroup, entryTime, entryRecords, entryName} {
		if off := binary.LittleEndian.Uint16(b[list+4+2*field:]); off != 0 {
			binary.LittleEndian.PutUint32(moved[off:], uint32(size-int64(off)))
		}
	}
	b = append(b, moved...)
	b = binary.LittleEndian.AppendUint32(b, 64<<10)
	b = append(b, make([]byte, 64<<10)...)
	z := &ztoc{f: newBuffer(b), tarSize: 1 << 60}
	z.entries = z.f.root().table(ztocTOC).vector(tocEntries)
	if z.entries.n != n {
		t.Fatalf("%d entries, %v", z.entries.n, z.f.err)
	}
	var read int
	for i := range n {
		z.entries.table(i).bytes(entryName)
		if z.f.err != nil {
			read = i
			break
		}
	}
	if !errors.Is(z.f.err, errShared) || read > 1000 {
		t.Errorf("%v after %d entries", z.f.err, read)
	}
}

// TestFlips: a ztoc with a flipped bit gives an error, or an index whose proofs,
// entries or windows differ; with it no byte of the layer is read that is not in a proof
// of SOCI's. A panic is none of the outcomes.
func TestFlips(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	for _, s := range fixtures(t) {
		step := 1 + len(s.ztoc)/150
		for i := 0; i < len(s.ztoc); i += step {
			z := bytes.Clone(s.ztoc)
			z[i] ^= 1 << (i % 8)
			x, err := Index(context.Background(), s.layer(), z, nil)
			if err != nil {
				if !errors.Is(err, layerindex.ErrIndex) && !errors.Is(err, layerindex.ErrLossy) {
					t.Errorf("%s: byte %d: %v", s.name, i, err)
				}
				continue
			}
			if err := x.Verify(context.Background()); err != nil {
				t.Errorf("%s: byte %d: the index is not valid: %v", s.name, i, err)
			}
			r := reader.New(x, memory(s.blob), nil)
			_, _ = r.ReadAt(context.Background(), make([]byte, min(x.Size(), 1<<20)), 0)
			r.Close()
		}
	}
}
