package index

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// smallLayer is a layer of a few thousand entries.
func smallLayer(t *testing.T, c labimage.Compression) *input {
	t.Helper()
	layout := t.TempDir()
	img, err := labimage.WriteAs(layout, c, labimage.Many(1, 3000))
	if err != nil {
		t.Fatal(err)
	}
	l := img.Manifest.Layers[0]
	in := &input{Input: labimage.Input{Name: "small", Path: img.Blob(l.Digest), Digest: l.Digest, Size: l.Size, DiffID: img.DiffIDs[0]}}
	if in.index, err = build(t.Context(), &in.Input); err != nil {
		t.Fatal(err)
	}
	in.tarSize = in.index.Size()
	return in
}

func testBench(t *testing.T) *bench {
	return &bench{ctx: t.Context(), runs: 1, dir: t.TempDir(), logf: t.Logf}
}

// TestPlainPass compares the two passes: they have to agree, and to be seen to
// disagree.
func TestPlainPass(t *testing.T) {
	for name, compress := range map[string]labimage.Compression{"usual": labimage.UsualGzip(), "fast": labimage.FastGzip} {
		in := smallLayer(t, compress)
		plain, err := plainPassFile(in.Path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := plain.compare(in, in.index); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		i := slices.IndexFunc(plain.files, func(f seenFile) bool { return f.sum != [32]byte{} })
		plain.files[i].sum[0] ^= 1
		if err := plain.compare(in, in.index); err == nil {
			t.Errorf("%s: another digest of %s was not noticed", name, plain.files[i].name)
		}
	}
}

func TestReads(t *testing.T) {
	b, in := testBench(t), smallLayer(t, labimage.UsualGzip())
	if err := b.checkSequential(in); err != nil {
		t.Error(err)
	}
	offsets := randomOffsets(in.tarSize, 10)
	want, err := plainRanges(in, offsets)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := in.open()
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if err := readEach(t.Context(), in.index, blob, offsets, want); err != nil {
		t.Error(err)
	}
	want[7][9] ^= 1
	if err := readEach(t.Context(), in.index, blob, offsets, want); err == nil {
		t.Error("other bytes were not noticed")
	}
}

// TestRangeCutter writes the same bytes in pieces of all sizes.
func TestRangeCutter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3*coldReadSize)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	offsets := []int64{0, 0, 1, 100, coldReadSize, coldReadSize + 1, 3*coldReadSize - 10}
	for _, size := range []int{1, 7, 4095, 4096, 4097, len(data)} {
		c := &rangeCutter{offsets: offsets, got: make([][]byte, len(offsets))}
		for p := range slices.Chunk(data, size) {
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		for i, off := range offsets {
			if want := data[off:min(int(off)+coldReadSize, len(data))]; !bytes.Equal(c.got[i], want) {
				t.Errorf("pieces of %d: got %d bytes at %d, not the right %d", size, len(c.got[i]), off, len(want))
			}
		}
	}
}

// TestSectionSizes checks that all bytes of an index file are accounted for.
func TestSectionSizes(t *testing.T) {
	x := smallLayer(t, labimage.FastGzip).index
	total, stored, err := sectionSizes(x)
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(128 + 32)
	for _, n := range stored {
		sum += sectionRow + n
	}
	files, err := filledFiles(x)
	if sum != total || stored[kindDigests] != int64(files)*32 || err != nil {
		t.Errorf("got %d bytes of %d, %d of digests of %d files, %v", sum, total, stored[kindDigests], files, err)
	}
}

func TestLoad(t *testing.T) {
	layout, dir := t.TempDir(), t.TempDir()
	if _, err := labimage.Write(layout, labimage.Many(1, 3000)); err != nil {
		t.Fatal(err)
	}
	entries, err := indexInto(t.Context(), dir, layout)
	if err != nil || entries != 3000 {
		t.Fatalf("got %d entries, %v, want 3000", entries, err)
	}
	if err := dropPages(dir); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	if code := Run(t.Context(), []string{loadCommand, dir, layout}, nil, &stdout, &stderr); code != 0 {
		t.Fatalf("got exit %d: %s", code, &stderr)
	}
	var r loaded
	if err := json.Unmarshal([]byte(stdout.String()), &r); err != nil || r.Inodes < entries || r.Seconds <= 0 {
		t.Errorf("got %s, %v", &stdout, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{"-only nothing", "-runs 0", "surplus", "-unknown", "load x"} {
		var stdout, stderr strings.Builder
		if code := Run(t.Context(), strings.Fields(args), nil, &stdout, &stderr); code != 2 || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%s: got exit %d, want 2\n%s", args, code, &stderr)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []time.Duration
		want time.Duration
	}{
		{[]time.Duration{5}, 5},
		{[]time.Duration{9, 1, 5}, 5},
		{[]time.Duration{9, 1, 5, 7}, 6},
	} {
		if got := median(c.of, func(d time.Duration) time.Duration { return d }); got != c.want {
			t.Errorf("%v: got %d, want %d", c.of, got, c.want)
		}
	}
}

func TestCells(t *testing.T) {
	for _, c := range []struct {
		f    figure
		want string
	}{
		{figure{Name: "a", Unit: "s", Ours: 0.5, Peer: "p", PeerValue: 1.25, WantRatio: 2.2}, "a | 0.500 s | p 1.25 s | 2.50 | ≥ 2.20 × | yes"},
		{figure{Name: "a", Unit: "s", Ours: 1, Peer: "p", PeerValue: 0.5, WantRatio: 0.7}, "a | 1 s | p 0.500 s | 0.50 | ≥ 0.70 × | **no**"},
		{figure{Name: "a", Unit: "s", Ours: 1, Peer: "p", Missing: "p is not here", WantRatio: 0.7}, "a | 1 s | p: p is not here |  | ≥ 0.70 × | unknown"},
		{figure{Name: "a", Unit: "s", Ours: 1, Peer: "p", PeerValue: 3}, "a | 1 s | p 3 s | 3.00 |  | "},
		{figure{Name: "a", Unit: "KiB", Ours: 1025, WantMost: 1024}, "a | 1025 KiB |  |  | ≤ 1024 KiB | **no**"},
		{figure{Name: "a", Unit: "ms", Ours: 1.999, WantMost: 2}, "a | 2.00 ms |  |  | ≤ 2 ms | yes"},
		{figure{Name: "a", Unit: "ms", Missing: "CORPORA is not set", WantMost: 2}, "a | CORPORA is not set |  |  | ≤ 2 ms | unknown"},
	} {
		if got := strings.Join(c.f.cells(), " | "); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
