package index

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
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
	in := &input{Input: labimage.Input{Name: "small", Path: img.Blob(l.Digest), Digest: l.Digest, Size: l.Size, DiffID: img.DiffIDs[0], Image: img}}
	if in.index, err = makeIndex(t.Context(), &in.Input); err != nil {
		t.Fatal(err)
	}
	return in
}

func testBench(t *testing.T) *bench {
	r := runner.New(t.Context(), runner.Settings{Runs: 1, Logf: t.Logf})
	r.Dir, r.Now = t.TempDir(), &figures.Section{}
	return &bench{Runner: r, others: foreign.New(r)}
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
		if err := plain.compare(in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		i := slices.IndexFunc(plain.files, func(f seenFile) bool { return f.sum != [32]byte{} })
		plain.files[i].sum[0] ^= 1
		if err := plain.compare(in); err == nil {
			t.Errorf("%s: another digest of %s was not noticed", name, plain.files[i].name)
		}
	}
}

func TestReads(t *testing.T) {
	b, in := testBench(t), smallLayer(t, labimage.UsualGzip())
	if err := b.checkSequential(in); err != nil {
		t.Error(err)
	}
	offsets := randomOffsets(in.index.Size(), 10)
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

// TestSections measures a small layer where nothing is there of SOCI.
func TestSections(t *testing.T) {
	b, in := testBench(t), smallLayer(t, labimage.UsualGzip())
	b.sociProgram = func() (string, error) { return "", runner.ErrNotBuilt }
	b.others.Compile = b.sociProgram
	for _, measure := range []func(*input) error{b.pass, b.soci, b.size, b.cold, b.sequential, b.making, b.contents} {
		if err := measure(in); err != nil {
			t.Error(err)
		}
	}
	for _, f := range b.Now.Figures {
		if strings.Contains(f.Missing, runner.ErrNotBuilt.Error()) {
			continue
		}
		if f.Ours <= 0 || f.Peer == sociPeer && f.PeerMissing == "" {
			t.Errorf("got %+v", f)
		}
	}
	if n := len(b.Now.Figures); n != 2+1+4+2+2+5+2 {
		t.Errorf("%d figures", n)
	}
}

// fixture returns a layer of the tests of a package below layerindex.
func fixture(t *testing.T, kind foreign.Kind, dir, name string) *twin {
	t.Helper()
	dir = filepath.Join("..", "..", "..", "..", "layerindex", dir, "testdata")
	path := filepath.Join(dir, name+".layer")
	blob, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "layers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var layers map[string]struct {
		Annotations map[string]string `json:"annotations"`
		DiffID      digest.Digest     `json:"diff_id"`
	}
	if err := json.Unmarshal(text, &layers); err != nil {
		t.Fatal(err)
	}
	l := layers[name]
	return &twin{kind: kind, annotations: l.Annotations, input: &input{Input: labimage.Input{
		Name: name, Path: path, Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: l.DiffID}}}
}

// TestContents: the TOC gives what the pass gives, and what differs is noticed.
func TestContents(t *testing.T) {
	for _, layer := range []*twin{fixture(t, foreign.EStargz, "estargz", "build"), fixture(t, foreign.ZstdChunked, "zstdchunked", "podman")} {
		b := testBench(t)
		if err := b.contentsOf(layer); err != nil {
			t.Error(err)
		}
		if n := len(b.Now.Figures); n != 2 || !strings.Contains(b.Now.Figures[0].Note, "files") {
			t.Errorf("%s: figures %+v", layer.Name, b.Now.Figures)
		}
		blob, err := os.ReadFile(layer.Path)
		if err != nil {
			t.Fatal(err)
		}
		blob[len(blob)/3] ^= 1
		layer.Path = filepath.Join(t.TempDir(), "changed")
		if err := os.WriteFile(layer.Path, blob, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := b.contentsOf(layer); err == nil {
			t.Errorf("%s: another byte was not noticed", layer.Name)
		}
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
	if code := RunLoad(t.Context(), []string{dir, layout}, &stdout, &stderr); code != 0 {
		t.Fatalf("got exit %d: %s", code, &stderr)
	}
	var r loaded
	if err := json.Unmarshal([]byte(stdout.String()), &r); err != nil || r.Inodes < entries || r.Seconds <= 0 {
		t.Errorf("got %s, %v", &stdout, err)
	}
}
