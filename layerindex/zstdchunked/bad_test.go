package zstdchunked_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/imgfs/imgfs/layerindex/zstdchunked"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/klauspost/compress/zstd"
)

const other = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func scan(t testing.TB, s, format string, to ...any) {
	t.Helper()
	if _, err := fmt.Sscanf(s, format, to...); err != nil {
		t.Fatal(err)
	}
}

// position returns numbers with colons between them.
func position(numbers ...int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ":"), "[]")
}

// TestLies: a TOC whose digest is right, that says what cannot be.
func TestLies(t *testing.T) {
	t.Parallel()
	const zeros = "d/zeros" // has chunks
	far := int64(1) << 40
	for _, c := range []struct {
		name   string
		change func(*toc)
		want   error
	}{
		{"offset at the TOC", func(x *toc) { x.entry("d/ns")["offset"], x.entry("d/ns")["endOffset"] = 1<<20, 1<<20+1 }, layerindex.ErrIndex},
		{"offset far away", func(x *toc) { x.entry("d/one")["offset"] = far }, layerindex.ErrIndex},
		{"offset before the one before", func(x *toc) { x.entry("d/exact")["offset"] = 1 }, layerindex.ErrIndex},
		{"offset inside the file before", func(x *toc) {
			x.entry("d/exact")["offset"] = add(x.entry("d/chunks")["endOffset"], -1)
		}, layerindex.ErrIndex},
		{"end before the beginning", func(x *toc) { x.entry("d/one")["endOffset"] = 1 }, layerindex.ErrIndex},
		{"end behind the contents", func(x *toc) { x.entry("d/old")["endOffset"] = 1 << 20 }, layerindex.ErrIndex},
		{"chunk behind the file's end", func(x *toc) { x.chunk(zeros)["offset"] = x.entry(zeros)["endOffset"] }, layerindex.ErrIndex},
		{"chunk at its file", func(x *toc) { x.chunk(zeros)["offset"] = x.entry(zeros)["offset"] }, layerindex.ErrIndex},
		{"chunk too long", func(x *toc) { x.chunk(zeros)["chunkSize"] = 1 << 20 }, layerindex.ErrIndex},
		{"chunks overlap", func(x *toc) { x.chunk(zeros)["chunkOffset"] = 1 }, layerindex.ErrIndex},
		{"chunks missing", func(x *toc) { x.chunk(zeros)["type"] = "fifo" }, layerindex.ErrIndex},
		{"chunk without a digest", func(x *toc) { delete(x.chunk(zeros), "chunkDigest") }, zstdchunked.ErrNone},
		{"file without a digest", func(x *toc) { delete(x.entry("d/one"), "digest") }, zstdchunked.ErrNone},
		{"digest that is none", func(x *toc) { x.entry("d/one")["digest"] = "sha256:" }, layerindex.ErrIndex},
		{"size below zero", func(x *toc) { x.entry("d/one")["size"] = -1 }, layerindex.ErrIndex},
		{"version 2", func(x *toc) { x.Version = 2 }, layerindex.ErrIndex},
		{"lost bytes of a name", func(x *toc) { x.entry("d/fifo")["name"] = "a\uFFFDb" }, layerindex.ErrLossy},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := apart(t, "podman").changed(t, c.change, func([]byte) []byte { return nil })
			if x, err := p.make(t).index(); !errors.Is(err, c.want) || x != nil {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func add(n any, d int64) int64 {
	var i int64
	fmt.Sscan(fmt.Sprint(n), &i)
	return i + d
}

// TestDisagree: a TOC that is about another tar than the tar-split.
func TestDisagree(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*toc){
		"another size":   func(x *toc) { x.entry("d/one")["size"] = 2 },
		"another type":   func(x *toc) { x.entry("d/fifo")["type"] = "dir" },
		"another name":   func(x *toc) { x.entry("d/fifo")["name"] = "d/fofi" },
		"another target": func(x *toc) { x.entry("d/symlink")["linkName"] = "elsewhere" },
		"entry less":     func(x *toc) { x.Entries = x.Entries[:len(x.Entries)-1] },
		"entry more":     func(x *toc) { x.Entries = append(x.Entries, map[string]any{"type": "dir", "name": "more"}) },
		"other order":    func(x *toc) { x.Entries[0], x.Entries[1] = x.Entries[1], x.Entries[0] },
		"no entry":       func(x *toc) { x.Entries = nil },
	} {
		m := apart(t, "podman").changed(t, change, nil).make(t)
		if _, err := m.index(); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What only the tar says is taken from there.
	m := apart(t, "podman").changed(t, func(x *toc) { x.entry("d/one")["mode"] = 0 }, nil).make(t)
	with, err := m.index()
	if err != nil {
		t.Fatal(err)
	}
	without, err := m.alone()
	if err != nil {
		t.Fatal(err)
	}
	for want, x := range map[uint32]*layerindex.Index{0o644: with, 0: without} {
		entries, err := x.Entries()
		if err != nil {
			t.Fatal(err)
		}
		for e := range entries {
			if e.Name == "d/one" && e.Mode != want {
				t.Errorf("mode %o, want %o", e.Mode, want)
			}
		}
	}
}

// TestTarSplitOfNoUse: a tar-split that the TOC does not vouch for is as good as none, and one
// with another digest is an error.
func TestTarSplitOfNoUse(t *testing.T) {
	t.Parallel()
	unvouched := func(x *toc) { x.TarSplitDigest = "" }
	if _, err := apart(t, "podman").changed(t, unvouched, nil).make(t).index(); err != nil {
		t.Errorf("not needed: %v", err)
	}
	if _, err := apart(t, "latin1").changed(t, unvouched, nil).make(t).index(); !errors.Is(err, layerindex.ErrLossy) {
		t.Errorf("needed: %v", err)
	}
	lie := func(x *toc) { x.TarSplitDigest = other }
	for _, name := range []string{"podman", "latin1"} {
		if _, err := apart(t, name).changed(t, lie, nil).make(t).index(); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s, another digest: %v", name, err)
		}
		m := apart(t, name).changed(t, nil, func(b []byte) []byte { return b[:len(b)/2] }).make(t)
		if _, err := m.index(); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s, half a tar-split: %v", name, err)
		}
	}
}

// TestFlippedBits: with a bit flipped in TOC or tar-split there is an error.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"podman", "stargz", "latin1"} {
		l := toctest.Fixture(t, name)
		blob := l.Read(t)
		a := annotated(t, l)
		var at, n, raw, splitAt, splitN int
		scan(t, a.ManifestPosition, "%d:%d:%d:1", &at, &n, &raw)
		if a.TarSplitPosition != "" {
			scan(t, a.TarSplitPosition, "%d:%d", &splitAt, &splitN)
		}
		for i := at - 8; i < len(blob.B); i += 1 + i%17 {
			flipped := bytes.Clone(blob.B)
			flipped[i] ^= 1 << (i % 8)
			_, err := zstdchunked.Index(t.Context(), l.Layer, toctest.NewBlob(flipped), &zstdchunked.Options{Annotations: a})
			used := i >= at && i < at+n || i >= splitAt && i < splitAt+splitN
			if used != (err != nil) || used && !errors.Is(err, layerindex.ErrIndex) {
				t.Fatalf("%s: byte %d: %v", name, i, err)
			}
		}
	}
}

// TestPositions: annotations that cannot be.
func TestPositions(t *testing.T) {
	t.Parallel()
	m := apart(t, "podman").make(t)
	var at, n, raw, splitAt, splitN, splitRaw int
	scan(t, m.ManifestPosition, "%d:%d:%d:1", &at, &n, &raw)
	scan(t, m.TarSplitPosition, "%d:%d:%d", &splitAt, &splitN, &splitRaw)
	size := len(m.B)
	for _, s := range []string{
		"", "x", position(at, n, raw), position(at, n, raw, 2), position(at, n, raw, 1, 1), position(at, 0, raw, 1), position(at, -n, raw, 1),
		position(-at, n, raw, 1), position(size, n, raw, 1), position(at, size, raw, 1), position(at, n, raw-1, 1), position(at, n, raw+1, 1),
		position(at, n, 151<<20, 1), position(at+1, n, raw, 1), position(at, n-1, raw, 1), fmt.Sprintf("+%d:%d:%d:1", at, n, raw),
		fmt.Sprintf("%d:%d:%d:1:", at, n, raw), fmt.Sprintf("%d:%d:%d:99999999999999999999", at, n, raw), strings.Repeat("1", 1000),
	} {
		bad := m
		bad.ManifestPosition = s
		if _, err := bad.index(); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("TOC at %.60q: %v", s, err)
		}
	}
	for _, s := range []string{
		"x", position(splitAt, splitN), position(splitAt, splitN, splitRaw-1), position(splitAt, splitN, splitRaw+1), position(at, splitN, splitRaw),
		position(splitAt, size, splitRaw), position(splitAt, 0, splitRaw), position(splitAt, splitN-1, splitRaw),
	} {
		bad := m
		bad.TarSplitPosition = s
		if _, err := bad.index(); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("tar-split at %q: %v", s, err)
		}
	}
	long := m
	long.TarSplitPosition = position(splitAt, splitN, 151<<20)
	if x, err := long.index(); err != nil || x.Origin() != layerindex.OriginZstdChunked {
		t.Errorf("a tar-split that is too long to be read, where the TOC does: %v", err)
	}
	bad := m
	bad.ManifestChecksum = other
	if _, err := bad.index(); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("another checksum: %v", err)
	}
}

// TestBombs: what decodes to more than the annotation says is not decoded further, and
// what says that it has more than 150 MiB not at all.
func TestBombs(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	p := apart(t, "podman").changed(t, nil, nil)
	p.json = append(p.json, bytes.Repeat([]byte(" "), 100<<20)...)
	m := p.make(t)
	if x, err := m.index(); err != nil || x.NumEntries() == 0 {
		t.Errorf("100 MiB of spaces: %v", err)
	}
	var at, n, raw int
	scan(t, m.ManifestPosition, "%d:%d:%d:1", &at, &n, &raw)
	for _, said := range []int{1000, raw - 100<<20, raw - 1, raw + 1} {
		m.ManifestPosition = position(at, n, said, 1)
		if _, err := m.index(); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("said to have %d of %d bytes: %v", said, raw, err)
		}
	}
	q := apart(t, "latin1").changed(t, nil, func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), 89<<20)...) })
	m = q.make(t)
	if _, err := m.index(); err != nil {
		t.Errorf("a tar-split of 89 MiB: %v", err)
	}
	scan(t, m.TarSplitPosition, "%d:%d:%d", &at, &n, &raw)
	m.TarSplitPosition = position(at, n, raw/2)
	if _, err := m.index(); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("a tar-split of 89 MiB, said to have half: %v", err)
	}
}

// TestLargeWindows: TOC and tar-split are read side by side though both are frames with
// windows for which there is one decoder. A larger one of the tar-split is refused.
func TestLargeWindows(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	spaces := bytes.Repeat([]byte(" "), 20<<20)
	for window, want := range map[int]error{16 << 20: nil, 32 << 20: nil, 64 << 20: layerindex.ErrIndex} {
		p := apart(t, "latin1")
		p.opts = []zstd.EOption{zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest)}
		p = p.changed(t, nil, func(b []byte) []byte { return slices.Concat(spaces, b, spaces) })
		p.json = slices.Concat(spaces, p.json, spaces)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := p.make(t)
		_, err := zstdchunked.Index(ctx, toctest.Of(m.B), m, &zstdchunked.Options{Annotations: m.Annotations})
		if !errors.Is(err, want) {
			t.Errorf("windows of %d: %v", window, err)
		}
	}
}

// TestStops: a context that has ended, a budget that is used up, and a blob that fails.
func TestStops(t *testing.T) {
	t.Parallel()
	m := apart(t, "podman").changed(t, nil, nil).make(t)
	opts := &zstdchunked.Options{Annotations: m.Annotations}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := zstdchunked.Index(ctx, toctest.Of(m.B), m, opts); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	budget := layerindex.NewBudget(1000, nil)
	opts.Budget = budget
	if _, err := zstdchunked.Index(t.Context(), toctest.Of(m.B), m, opts); !errors.Is(err, layerindex.ErrMetadata) {
		t.Error(err)
	}
	opts.Budget, opts.MaxSize = nil, 1000
	if _, err := zstdchunked.Index(t.Context(), toctest.Of(m.B), m, opts); !errors.Is(err, layerindex.ErrTooBig) {
		t.Error(err)
	}
	failing := errors.New("the line is cut")
	if _, err := zstdchunked.Index(t.Context(), toctest.Of(m.B), broken{m.Blob, failing}, &zstdchunked.Options{Annotations: m.Annotations}); !errors.Is(err, failing) || errors.Is(err, layerindex.ErrIndex) {
		t.Error(err)
	}
	if _, err := zstdchunked.Index(t.Context(), toctest.Of(m.B), m, nil); err == nil {
		t.Error("without annotations there is no error")
	}
}

// broken fails.
type broken struct {
	*toctest.Blob
	err error
}

func (b broken) ReadAt(context.Context, []byte, int64) (int, error) { return 0, b.err }

// FuzzZstdChunked makes the index of a layer with any TOC and tar-split behind real
// contents. What is accepted can be read back, and no place in it is outside of the layer.
func FuzzZstdChunked(f *testing.F) {
	for _, name := range []string{"podman", "latin1", "stargz"} {
		p := apart(f, name)
		f.Add(p.contents, p.json, p.split, true)
		f.Add(p.contents, p.json, p.split[:len(p.split)/2], false)
	}
	f.Fuzz(func(t *testing.T, contents, text, split []byte, vouched bool) {
		p := parts{contents: contents, json: text, split: split}
		if vouched {
			var x toc
			if json.Unmarshal(text, &x) == nil {
				p = p.changed(t, nil, nil)
			}
		}
		m := p.make(t)
		x, err := zstdchunked.Index(t.Context(), toctest.Of(m.B), m, &zstdchunked.Options{Annotations: m.Annotations, Budget: layerindex.NewBudget(64<<20, nil)})
		if err != nil {
			return
		}
		if err := x.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		toctest.Covered(t, x)
	})
}
