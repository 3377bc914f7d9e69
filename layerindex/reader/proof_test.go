package reader

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/layerindex/internal/samples"

	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/decoders"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// need returns the path of a program. Without it a test is skipped, or fails
// in CI, where all are installed.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// output runs a program with its standard input from a file, because zopfli
// asks that for its length.
func output(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(name, stdin, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command(need(t, args[0]), args[1:]...)
	cmd.Stdin = in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, stderr.Bytes())
	}
	return out
}

// writeTree makes files as layers have them, of about size bytes in all: source
// code, a program, what does not compress, zeros, nothing, links, deep names.
func writeTree(t testing.TB, dir string, size int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(11, 12))
	put := func(name string, content []byte) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sources, err := filepath.Glob("*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	for i, n := 0, 0; n < size/2; i++ {
		text, err := os.ReadFile(sources[i%len(sources)])
		if err != nil {
			t.Fatal(err)
		}
		n += len(text)
		put(fmt.Sprintf("usr/src/%d/%s", i/len(sources), sources[i%len(sources)]), text)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	binary := make([]byte, size/4)
	if _, err := io.ReadFull(program, binary); err != nil {
		t.Fatal(err)
	}
	put("usr/bin/program", binary)
	noise := make([]byte, size/8)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	put("var/random", noise)
	put("var/zeros", make([]byte, size/8))
	put("etc/nothing", nil)
	put("etc/one", []byte("x"))
	for _, n := range []int{511, 512, 513} {
		put(fmt.Sprintf("etc/block%d", n), noise[:n])
	}
	put(strings.Repeat("a-long-directory-name/", 12)+"and a name, too", []byte("deep"))
	if err := os.Symlink("one", filepath.Join(dir, "etc/symlink")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "etc/one"), filepath.Join(dir, "etc/hardlink")); err != nil {
		t.Fatal(err)
	}
}

// A realLayer is a tar that GNU tar wrote, and what GNU tar makes of it.
type realLayer struct {
	tar   []byte
	files map[string][32]byte // SHA-256 of every regular file by its name
}

// makeLayer packs a tree, and unpacks it again with gzip -dc | tar.
func makeLayer(t testing.TB, size int) *realLayer {
	t.Helper()
	gnu := gnuTar()
	if gnu == "" {
		need(t, "GNU tar")
	}
	need(t, "gzip")
	dir := t.TempDir()
	writeTree(t, dir, size)
	l := &realLayer{tar: output(t, nil, gnu, "-C", dir, "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-cf", "-", "."), files: map[string][32]byte{}}
	packed := filepath.Join(t.TempDir(), "layer.tar.gz")
	if err := os.WriteFile(packed, samples.Gzip(t, l.tar), 0o600); err != nil {
		t.Fatal(err)
	}
	unpacked := t.TempDir()
	cmd := exec.Command("sh", "-c", `gzip -dc "$1" | "$2" -xf - -C "$3"`, "sh", packed, gnu, unpacked)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gzip -dc | tar: %v: %s", err, out)
	}
	err := filepath.WalkDir(unpacked, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		l.files["."+strings.TrimPrefix(name, unpacked)] = sha256.Sum256(content)
		return err
	})
	if err != nil || len(l.files) < 10 {
		t.Fatalf("%d files unpacked, %v", len(l.files), err)
	}
	return l
}

// TestProof has one layer as all encoders write it. SHA-256 of the whole and of
// every file, through a Reader, are those of gzip -dc | tar; every checkpoint
// can be entered with a window that is wrong wherever nothing refers to it; and
// 100 reads at random places are right.
func TestProof(t *testing.T) {
	testenv.Slow(t)
	l := makeLayer(t, inflatetest.Scale(2<<20))
	span := int64(max(inflatetest.Scale(128<<10), 34<<10))
	for _, p := range packers {
		t.Run(p.name, func(t *testing.T) {
			var blob []byte
			if p.pack != nil {
				blob = p.pack(t, l.tar)
			} else {
				blob = output(t, l.tar, p.args...)
			}
			if got := output(t, blob, "gzip", "-dc"); !bytes.Equal(got, l.tar) {
				t.Fatalf("gzip -dc gives %d other bytes", len(got))
			}
			built := mustBuild(t, blob, l.tar, &build.Options{SpanSize: span})
			file := encoded(t, built)
			x, err := layerindex.ReadIndex(bytes.NewReader(file), int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			if x.NumSpans() < 2 {
				t.Errorf("%d spans: there is next to nothing to enter", x.NumSpans())
			}
			checkFiles(t, x, blob, l)
			checkPoisoned(t, x, blob, l.tar)
			r := New(x, samples.Blob(blob), &Options{Cache: NewSpanCache(6 * span)})
			rng := rand.New(rand.NewPCG(1, 100))
			for range 100 {
				checkRead(t, r, l.tar, rng.Int64N(int64(len(l.tar))), rng.Int64N(2*span))
			}
		})
	}
}

// checkFiles compares the whole and every file with what GNU tar unpacked.
func checkFiles(t *testing.T, x *layerindex.Index, blob []byte, l *realLayer) {
	t.Helper()
	r := New(x, samples.Blob(blob), &Options{NewTemp: inDir(t.TempDir())})
	if sha256.Sum256(readAll(t, r, 0, r.Size())) != sha256.Sum256(l.tar) {
		t.Error("SHA-256 of the whole differs")
	}
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for e := range entries {
		name := e.Name
		if e.Type == layerindex.TypeLink {
			name = e.Linkname
			if l.files[e.Name] != l.files[name] {
				t.Errorf("%s is not %s", e.Name, name)
			}
			seen[e.Name] = true
		}
		if e.Type != layerindex.TypeReg {
			continue
		}
		want, ok := l.files[name]
		if got := sha256.Sum256(readAll(t, r, e.Off, e.Size)); !ok || got != want || !e.HasDigest || e.Digest != want {
			t.Errorf("%s: SHA-256 %x, in the index %x, unpacked %x", name, got, e.Digest, want)
		}
		seen[name] = true
	}
	if len(seen) != len(l.files) {
		t.Errorf("%d files, %d unpacked", len(seen), len(l.files))
	}
}

// checkPoisoned enters every checkpoint as the index file has it, with all
// bytes of its window that the file leaves out set to something else: first
// alone, and then in an index that has such windows, through a Reader.
func checkPoisoned(t *testing.T, x *layerindex.Index, blob, tarBytes []byte) {
	t.Helper()
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	poison := layerindex.NewWriter(&layerindex.WriterOptions{NoDigests: true})
	var dec codec.Decoder
	for i, p := range pointsOf(t, spans) {
		if !p.Start {
			p.Window = poisoned(p.Window)
		}
		if err := poison.AddCheckpoints([]codec.Checkpoint{p}); err != nil {
			t.Fatal(err)
		}
		want := tarBytes[p.Out:]
		if i != 1 { // a window is used up after 32 KiB
			want = want[:min(len(want), 100<<10)]
		}
		dec, err = decoders.Resume(x.Codec(), bytes.NewReader(blob[p.In:]), p, dec)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for err == nil && len(got) < len(want) {
			var out []byte
			out, err = dec.Next()
			got = append(got, out...)
		}
		if err != nil || !bytes.HasPrefix(got, want) {
			t.Fatalf("checkpoint %d, %+v: %d bytes, error %v; want %d", i, p, len(got), err, len(want))
		}
	}
	bad, err := poison.Finish(layerindex.Summary{Codec: x.Codec(), BlobSize: x.BlobSize(), ChunkSize: x.ChunkSize(), TarSize: x.Size()})
	if err != nil {
		t.Fatal(err)
	}
	// Backwards, so that no decoder goes on from the span before.
	r := New(bad, samples.Blob(blob), &Options{Cache: NewSpanCache(0)})
	for i := spans.Len() - 1; i >= 0; i-- {
		end, _ := spans.End(i)
		out := startOut(spans, i)
		if got := readAll(t, r, out, end-out); !bytes.Equal(got, tarBytes[out:end]) {
			t.Fatalf("checkpoint %d through a Reader: wrong bytes", i)
		}
	}
}

// window is how many bytes before a checkpoint decoding may refer to.
const window = 32 << 10

// poisoned returns w with the bytes that it does not have set to 0xa5.
func poisoned(w codec.Window) codec.Window {
	p := bytes.Repeat([]byte{0xa5}, window)
	data := w.Data
	for _, r := range w.Runs {
		copy(p[r.Off:int(r.Off)+int(r.Len)], data)
		data = data[r.Len:]
	}
	return codec.Window{Runs: []codec.Run{{Len: window}}, Data: p}
}

// TestFullFlushNeedsNoWindow: what a checkpoint right behind a full flush
// keeps is nothing, and behind a sync flush something.
func TestFullFlushNeedsNoWindow(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 600_000)
	for _, full := range []bool{true, false} {
		blob := flushed(t, tarBytes, full)
		x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 8})
		spans, err := x.Spans()
		if err != nil {
			t.Fatal(err)
		}
		at, kept := 0, 0
		for _, p := range pointsOf(t, spans) {
			if p.Out%20_000 != 0 || p.Out == 0 {
				continue
			}
			at++
			kept += len(p.Window.Data)
		}
		if at == 0 || full != (kept == 0) {
			t.Errorf("full %v: %d checkpoints behind flushes, windows of %d bytes", full, at, kept)
		}
	}
}

// TestProofWithoutCodec is the same for what has no windows.
func TestProofWithoutCodec(t *testing.T) {
	testenv.Slow(t)
	l := makeLayer(t, inflatetest.Scale(2<<20))
	for _, c := range samples.Codecs {
		if c.Want == "gzip" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			blob := c.Wrap(t, l.tar)
			x := mustBuild(t, blob, l.tar, &build.Options{SpanSize: 64 << 10})
			checkFiles(t, x, blob, l)
			if c.Want == "zstd" {
				checkPoisoned(t, x, blob, l.tar)
			}
			r := New(x, samples.Blob(blob), &Options{NewTemp: inDir(t.TempDir())})
			rng := rand.New(rand.NewPCG(1, 101))
			for range 100 {
				checkRead(t, r, l.tar, rng.Int64N(r.Size()), rng.Int64N(200_000))
			}
		})
	}
}

// TestManyMembers has each byte of a small layer in a member of its own.
func TestManyMembers(t *testing.T) {
	tarBytes := samples.Tar(t, 1000)
	tarBytes = append(tarBytes, make([]byte, max(0, 10_240-len(tarBytes)))...)
	var blob []byte
	packed := map[byte][]byte{}
	for i, c := range tarBytes {
		if packed[c] == nil {
			packed[c] = samples.Gzip(t, tarBytes[i:i+1])
		}
		blob = append(blob, packed[c]...)
	}
	for _, span := range []int64{0, 1000} {
		x := mustBuild(t, blob, tarBytes, &build.Options{SpanSize: span})
		r := New(x, samples.Blob(blob), &Options{NewTemp: inDir(t.TempDir())})
		for _, off := range []int64{0, 1, 5000, int64(len(tarBytes)) - 1} {
			checkRead(t, r, tarBytes, off, 3000)
		}
		checkPoisoned(t, x, blob, tarBytes)
	}
	if len(tarBytes) < 10_000 {
		t.Errorf("%d members", len(tarBytes))
	}
}

// gnuTar returns the command of GNU tar, if there is one.
func gnuTar() string {
	for _, name := range []string{"tar", "gtar"} {
		if out, err := exec.Command(name, "--version").Output(); err == nil && bytes.Contains(out, []byte("GNU tar")) {
			return name
		}
	}
	return ""
}
