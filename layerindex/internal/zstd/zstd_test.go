package zstd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// text returns n bytes that compress about as well as source code does.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	words := make([]string, 3000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", r.Uint64()>>(8+r.IntN(52)))
	}
	b := make([]byte, 0, n+20)
	for len(b) < n {
		b = append(b, words[min(r.IntN(len(words)), r.IntN(len(words)))]...)
		b = append(b, " \n\t("[r.IntN(4)])
	}
	return b[:n]
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(2, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// program runs the zstd program on stdin. Tests that need it are skipped
// where it is not installed, but not in CI.
func program(t testing.TB, stdin []byte, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("zstd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("zstd is not installed")
	}
	cmd := exec.Command(path, append(args, "-q")...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("zstd %v: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, err
}

func compress(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	out, err := program(t, data, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compressFile is compress for a file, whose size zstd writes to the frame.
func compressFile(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return compress(t, nil, append(args, "-c", name)...)
}

func encode(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, append(opts, zstd.WithZeroFrames(true))...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return e.EncodeAll(data, nil)
}

// frames compresses data in pieces of about size bytes, one frame each.
func frames(t testing.TB, data []byte, size int) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	r := rand.New(rand.NewPCG(3, uint64(size)))
	var b []byte
	for len(data) > 0 {
		n := min(len(data), 1+r.IntN(2*size))
		b = e.EncodeAll(data[:n], b)
		data = data[n:]
	}
	return b
}

// skippable returns a skippable frame.
func skippable(id uint32, data string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, skippableMagic|id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// drain decodes all there is.
func drain(d codec.Decoder) ([]byte, error) {
	var b []byte
	for {
		p, err := d.Next()
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		if len(p) == 0 || len(p) > outSize {
			return b, fmt.Errorf("piece of %d bytes", len(p))
		}
		b = append(b, p...)
	}
}

// check decodes stream, wants data, resumes at every checkpoint, and returns
// the checkpoints.
func check(t *testing.T, stream, data []byte, span int64) []codec.Checkpoint {
	t.Helper()
	x := NewIndexer(bytes.NewReader(stream), &Options{SpanOut: span})
	got, err := drain(x)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("stream of %d bytes: got %d bytes, error %v; want %d bytes", len(stream), len(got), err, len(data))
	}
	points := x.Checkpoints()
	if len(points) == 0 || points[0].In != 0 || points[0].Out != 0 {
		t.Fatalf("checkpoints %v do not begin with the start", points)
	}
	for i, cp := range points {
		if i > 0 && (cp.Out-points[i-1].Out < span || cp.Out >= int64(len(data))) {
			t.Errorf("checkpoint %d at %d of output, span %d, after %d, output %d bytes", i, cp.Out, span, points[i-1].Out, len(data))
		}
		d, err := Resume(bytes.NewReader(stream[cp.In:]), cp)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := drain(d); err != nil || !bytes.Equal(got, data[cp.Out:]) {
			t.Fatalf("resumed at %+v: got %d bytes, error %v; want %d", cp, len(got), err, len(data)-int(cp.Out))
		}
	}
	if more := x.Checkpoints(); len(more) != 0 {
		t.Errorf("checkpoints handed out twice: %v", more)
	}
	return points
}

func TestDecode(t *testing.T) {
	testenv.Slow(t)
	big := text(5 << 18)
	mixed := slices.Concat(big[:1<<18], noise(200<<10), make([]byte, 200<<10), big[1<<18:])
	many := frames(t, mixed, 4<<10)
	pzstd := func() []byte {
		var b []byte
		for _, p := range []int{0, 2, 4} {
			b = append(b, skippable(0, "\x01\x02\x03\x04")...)
			b = append(b, encode(t, mixed[p<<18:(p+2)<<18])...)
		}
		return append(b, encode(t, mixed[6<<18:])...)
	}
	tests := []struct {
		name   string
		stream func() []byte
		data   []byte
		points int // wanted, with a span of 256 KiB; 0: any number
	}{
		{"one frame streamed", func() []byte { return compress(t, mixed) }, mixed, 1},
		{"one frame of a file", func() []byte { return compressFile(t, mixed) }, mixed, 1},
		{"best", func() []byte { return compress(t, big, "-19") }, big, 1},
		{"fastest", func() []byte { return compress(t, mixed, "--fast=5") }, mixed, 1},
		{"no checksum", func() []byte { return compress(t, mixed, "--no-check") }, mixed, 1},
		{"long window", func() []byte { return compress(t, mixed, "--long=27") }, mixed, 1},
		{"small window", func() []byte { return compress(t, mixed, "--zstd=wlog=10") }, mixed, 1},
		{"threads", func() []byte { return compress(t, mixed, "-T2", "-B300K") }, mixed, 1},
		{"klauspost", func() []byte { return encode(t, mixed) }, mixed, 1},
		{"klauspost streamed", func() []byte { return streamed(t, mixed) }, mixed, 1},
		{"klauspost no checksum", func() []byte { return encode(t, mixed, zstd.WithEncoderCRC(false)) }, mixed, 1},
		{"many frames", func() []byte { return many }, mixed, 0},
		{"pzstd", pzstd, mixed, 4},
		{"frames of zeros", func() []byte { return bytes.Repeat(encode(t, make([]byte, 700<<10)), 3) }, make([]byte, 2100<<10), 3},
		{"piece and frame of one size", func() []byte { return bytes.Repeat(encode(t, big[:outSize]), 5) }, bytes.Repeat(big[:outSize], 5), 5},
		{"one byte", func() []byte { return encode(t, []byte("x")) }, []byte("x"), 1},
		{"empty frame", func() []byte { return encode(t, nil) }, nil, 1},
		{"empty frame streamed", func() []byte { return compress(t, nil) }, nil, 1},
		{"empty frames around", func() []byte {
			e := encode(t, nil)
			return slices.Concat(e, e, encode(t, big[:2<<18]), e, compress(t, nil), encode(t, big[2<<18:]), e)
		}, big, 2},
		{"skippable only", func() []byte { return skippable(7, "no output") }, nil, 1},
		{"skippable around", func() []byte {
			return slices.Concat(skippable(0, ""), skippable(15, "abc"), encode(t, big[:2<<18]),
				skippable(10, strings.Repeat("x", 600<<10)), encode(t, big[2<<18:]), skippable(14, "seek table"))
		}, big, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stream := tt.stream()
			points := check(t, stream, tt.data, 1<<18)
			if tt.points != 0 && len(points) != tt.points {
				t.Errorf("got %d checkpoints %v, want %d", len(points), points, tt.points)
			}
			got, err := program(t, stream, "-d")
			if err != nil || !bytes.Equal(got, tt.data) {
				t.Errorf("zstd -d: got %d bytes, %v; want %d", len(got), err, len(tt.data))
			}
		})
	}
}

// streamed compresses without telling the encoder the size.
func streamed(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	e, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(data, 10_000) {
		if _, err := e.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A checkpoint is at the first frame that is far enough behind the last one.
func TestCheckpointDistance(t *testing.T) {
	data := text(1 << 20)
	points := check(t, frames(t, data, 1<<10), data, 64<<10)
	if len(points) < 14 || len(points) > 16 {
		t.Errorf("got %d checkpoints in %d bytes of small frames, want 14 to 16", len(points), len(data))
	}
}

// Checkpoints come while decoding, not only at the end.
func TestCheckpointsEarly(t *testing.T) {
	data := text(1 << 20)
	x := NewIndexer(bytes.NewReader(frames(t, data, 1<<10)), &Options{SpanOut: 100_000})
	var out int64
	var outs []int64
	for {
		p, err := x.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out += int64(len(p))
		for _, cp := range x.Checkpoints() {
			if cp.Out > out {
				t.Errorf("checkpoint at %d when %d bytes were handed on", cp.Out, out)
			}
			outs = append(outs, cp.Out)
		}
	}
	if len(outs) < 9 || !slices.IsSorted(outs) {
		t.Errorf("checkpoints at %v", outs)
	}
}

func TestReaders(t *testing.T) {
	data := slices.Concat(text(300_000), noise(300_000))
	stream := slices.Concat(encode(t, data), skippable(1, "abc"), frames(t, data, 2000))
	data = append(data, data...)
	for name, r := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "error with data": iotest.DataErrReader,
	} {
		if got, err := drain(NewIndexer(r(bytes.NewReader(stream)), nil)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, error %v; want %d", name, len(got), err, len(data))
		}
	}
}

func TestReadError(t *testing.T) {
	data := text(2 << 20)
	broken := errors.New("broken")
	for _, stream := range [][]byte{encode(t, data), frames(t, data, 1000), skippable(3, string(data))} {
		for _, at := range []int{0, 3, 6, len(stream) / 2, len(stream) - 1} {
			src := io.MultiReader(bytes.NewReader(stream[:at]), iotest.ErrReader(broken))
			d := NewIndexer(src, nil)
			got, err := drain(d)
			var place *codec.Error
			if !errors.Is(err, broken) || !errors.As(err, &place) || place.In > int64(at) {
				t.Errorf("reader that breaks at %d: error %v", at, err)
			}
			if !bytes.HasPrefix(data, got) {
				t.Errorf("reader that breaks at %d: %d wrong bytes", at, len(got))
			}
			if _, again := d.Next(); again != err {
				t.Errorf("error %v, then %v", err, again)
			}
		}
	}
}

func TestResumeRefuses(t *testing.T) {
	for _, cp := range []codec.Checkpoint{{}, {Start: true, Bit: 1}, {Start: true, Symbol: 9}, {Start: true, In: -1}} {
		if d, err := Resume(bytes.NewReader(nil), cp); err == nil {
			t.Errorf("Resume(%+v) = %v, want an error", cp, d)
		}
	}
}

func TestResumePlace(t *testing.T) {
	d, err := Resume(strings.NewReader("no frame at all"), codec.Checkpoint{In: 1000, Out: 5, Start: true})
	if err != nil {
		t.Fatal(err)
	}
	var place *codec.Error
	if _, err := d.Next(); !errors.As(err, &place) || place.In != 1000 || !errors.Is(err, codec.ErrFormat) {
		t.Errorf("got error %v, want one at byte 1000", err)
	}
}

// Reading many frames allocates for the decoder, not for each frame.
func TestAllocations(t *testing.T) {
	stream := frames(t, text(1<<20), 1000)
	n := testing.AllocsPerRun(2, func() {
		if _, err := io.Copy(io.Discard, &reader{d: NewIndexer(bytes.NewReader(stream), nil)}); err != nil {
			t.Fatal(err)
		}
	})
	if n > 700 { // some 40 without the race detector
		t.Errorf("%v allocations for some 1000 frames", n)
	}
}

// A reader makes an io.Reader of a decoder.
type reader struct {
	d codec.Decoder
	p []byte
}

func (r *reader) Read(p []byte) (n int, err error) {
	if len(r.p) == 0 {
		if r.p, err = r.d.Next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, r.p)
	r.p = r.p[n:]
	return n, nil
}
