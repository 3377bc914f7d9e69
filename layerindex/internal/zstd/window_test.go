package zstd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// farData has matches that reach 11 MiB back, more than smallWindow.
var farData = sync.OnceValue(func() []byte {
	far := noise(11 << 20)
	return slices.Concat(far, text(1<<20), far[1<<20:4<<20], far)
})

// farStream is farData in one frame, of a size that it does not tell.
func farStream(t testing.TB, opts ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	e, err := zstd.NewWriter(&b, append([]zstd.EOption{zstd.WithWindowSize(32 << 20), zstd.WithEncoderConcurrency(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write(farData()); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// isFree reports whether nobody has the large decoder.
func isFree() bool { return len(large.held) == 0 }

// TestLargeWindow decodes frames that need more than smallWindow.
func TestLargeWindow(t *testing.T) {
	testenv.Slow(t)
	data := farData()
	one := farStream(t)
	if len(one) > len(data)*2/3 {
		t.Fatalf("%d bytes of %d: the encoder found nothing far back", len(one), len(data))
	}
	twice := slices.Concat(data, data)
	tests := []struct {
		name         string
		stream, data []byte
		points       int
	}{
		{"one frame", one, data, 1},
		{"no checksum", farStream(t, zstd.WithEncoderCRC(false)), data, 1},
		{"content size", encode(t, data, zstd.WithWindowSize(32<<20)), data, 1},
		{"single segment", encode(t, data, zstd.WithWindowSize(32<<20), zstd.WithSingleSegment(true)), data, 1},
		{"two frames and small ones", slices.Concat(encode(t, nil), one, skippable(3, "abc"), encode(t, text(1000)), one), slices.Concat(data, text(1000), data), 2},
		{"program", compress(t, twice, "-1", "--long=27"), twice, 1},
		{"program, of a file", compressFile(t, twice, "-1", "--long=27"), twice, 1},
	}
	for _, tt := range tests {
		if inflatetest.Scale(8) != 8 && len(tt.data) != len(data) {
			continue // too slow with the race detector
		}
		t.Run(tt.name, func(t *testing.T) {
			large.window = 0
			if points := check(t, tt.stream, tt.data, 1<<20); len(points) != tt.points {
				t.Errorf("%d checkpoints, want %d", len(points), tt.points)
			}
			if large.window == 0 {
				t.Error("it was decoded without the large decoder, so the test shows nothing")
			}
			if !isFree() {
				t.Error("the large decoder was not given back")
			}
		})
	}
}

// TestLargeWindowDamage: faults behind smallWindow of output, too, come with a
// place, give no wrong bytes but those of a checksum, and free the decoder.
func TestLargeWindowDamage(t *testing.T) {
	testenv.Slow(t)
	data, stream := farData(), farStream(t)
	resume := func(b []byte) codec.Decoder {
		d, err := Resume(bytes.NewReader(b), codec.Checkpoint{Start: true})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for i, cut := range []int{len(stream) - 1, len(stream) - 5, len(stream) - 100_000, len(stream) - 100_000} {
		d := resume(stream[:cut])
		if i%2 == 0 {
			d = NewIndexer(bytes.NewReader(stream[:cut]), nil)
		}
		got, err := drain(d)
		var place *codec.Error
		if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &place) || place.In > int64(cut) || place.In < int64(cut)-4 || !bytes.HasPrefix(data, got) || len(got) < smallWindow {
			t.Errorf("cut at %d of %d: got %d bytes, error %v", cut, len(stream), len(got), err)
		}
		if !isFree() {
			t.Fatal("the large decoder was not given back")
		}
	}
	got, err := drain(resume(flip(stream, -1)))
	if !errors.Is(err, codec.ErrFormat) || !bytes.HasPrefix(data, got) {
		t.Errorf("wrong checksum: got %d bytes, error %v", len(got), err)
	}
	if !isFree() {
		t.Error("the large decoder was not given back")
	}
}

// TestLargeWindowsTakeTurns: many at a time come all to their end.
func TestLargeWindowsTakeTurns(t *testing.T) {
	data, stream := farData(), farStream(t)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if got, err := drain(NewIndexer(bytes.NewReader(stream), nil)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, error %v; want %d", len(got), err, len(data))
			}
		})
		all.Go(func() {
			d, err := Resume(bytes.NewReader(stream), codec.Checkpoint{Start: true})
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := drain(d); err != nil || !bytes.Equal(got, data) {
				t.Errorf("resumed: got %d bytes, error %v; want %d", len(got), err, len(data))
			}
		})
	}
	all.Wait()
}

// TestSmallFramesDoNotWait: what has no more than 8 MiB of output does without
// the large decoder, whatever its frames ask for, so that a reader that stops
// in the middle of it is in nobody's way.
func TestSmallFramesDoNotWait(t *testing.T) {
	testenv.Slow(t)
	large.held <- struct{}{}
	defer func() { <-large.held }()
	data := slices.Concat(text(5<<20), noise(3<<20))
	var flushed bytes.Buffer
	e, err := zstd.NewWriter(&flushed, zstd.WithWindowSize(128<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(data, 30_000) { // more blocks than needed
		if _, err := e.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for name, stream := range map[string][]byte{
		"flushed":        flushed.Bytes(),
		"program":        compress(t, data, "-1", "--long=27"),
		"program, sized": compressFile(t, data, "-1", "--long=27"),
	} {
		if h, err := parseHeader(stream[:headerSize(stream[4])]); name != "program, sized" && (err != nil || h.window != 128<<20) {
			t.Errorf("%s: window of %d bytes, %v; the test shows nothing", name, h.window, err)
		}
		d, err := Resume(bytes.NewReader(stream), codec.Checkpoint{Start: true})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := drain(d); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, error %v", name, len(got), err)
		}
	}
}

// TestClose: a decoder that is left in the middle of a frame gives the large
// one back when it is closed, and when it is lost.
func TestClose(t *testing.T) {
	data, stream := farData(), farStream(t)
	begin := func() *Decoder {
		x, err := Resume(bytes.NewReader(stream), codec.Checkpoint{Start: true})
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 10<<20; {
			p, err := x.Next()
			if err != nil {
				t.Fatal(err)
			}
			n += len(p)
		}
		if isFree() {
			t.Fatal("it does without the large decoder")
		}
		return x
	}
	x := begin()
	for range 2 {
		if err := x.Close(); err != nil || !isFree() {
			t.Errorf("Close = %v, free %v", err, isFree())
		}
	}
	if _, err := x.Next(); !errors.Is(err, errClosed) {
		t.Errorf("Next after Close = %v", err)
	}
	begin()
	if got, err := drain(NewIndexer(bytes.NewReader(stream), nil)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after one that was lost: got %d bytes, error %v", len(got), err)
	}
}

// TestSpareDecoders: who ends, in the middle of a frame or of a damaged one,
// leaves its memory to the next, which decodes no worse with it.
func TestSpareDecoders(t *testing.T) {
	testenv.Slow(t)
	data := slices.Concat(text(3<<20), noise(1<<20))
	stream := streamed(t, data)
	damaged := flip(stream, -80) // in the noise: the checksum tells
	use := func(i int) {
		src := stream
		if i%2 == 1 {
			src = damaged
		}
		d, err := Resume(bytes.NewReader(src), codec.Checkpoint{Start: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Next()
		for i%2 == 1 && err == nil {
			_, err = d.Next()
		}
		if (i%2 == 1) != errors.Is(err, codec.ErrFormat) {
			t.Fatalf("stream %d: got error %v", i, err)
		}
		d.Close()
		if _, err := d.Next(); err == nil {
			t.Error("a closed decoder goes on")
		}
	}
	for i := range 10 {
		use(i)
		check(t, stream, data, 0)
	}
	if inflatetest.Scale(8) != 8 {
		return // with the race detector a sync.Pool forgets on purpose
	}
	const rounds = 40
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range rounds {
		use(i)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > 1<<20 {
		t.Errorf("%d bytes are allocated for each decoder, want no window", each)
	}
}

// TestBlocksWithoutOutput: what is kept to begin a frame again is bounded.
func TestBlocksWithoutOutput(t *testing.T) {
	defer func(n int) { maxKept = n }(maxKept)
	maxKept = 4 << 20
	head := []byte("\x28\xb5\x2f\xfd\x00\x88") // window of 128 MiB, no content size
	empty := bytes.Repeat([]byte{0, 0, 0}, 1<<16)
	src := []io.Reader{bytes.NewReader(head)}
	for n := 0; n < maxKept+1<<20; n += len(empty) {
		src = append(src, bytes.NewReader(empty))
	}
	d, err := Resume(io.MultiReader(src...), codec.Checkpoint{Start: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := drain(d)
	if !errors.Is(err, codec.ErrFormat) || len(got) != 0 {
		t.Errorf("got %d bytes, error %v; want a refusal", len(got), err)
	}
}

// TestLessen: a header with another window is otherwise the same.
func TestLessen(t *testing.T) {
	for descriptor := range 256 {
		if descriptor&8 != 0 {
			continue
		}
		raw := binary.LittleEndian.AppendUint32(nil, magic)
		raw = append(raw, byte(descriptor), 0x88, 3, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7)
		h, err := parseHeader(raw[:headerSize(byte(descriptor))])
		if err != nil {
			t.Fatal(err)
		}
		if h.window <= smallWindow || h.sized && h.content < 256 {
			continue
		}
		small, window := h.lessen(raw[:h.size], smallWindow)
		g, err := parseHeader(small)
		if err != nil || len(small) != headerSize(small[4]) || g.window != smallWindow || window != smallWindow ||
			g.sized != h.sized || g.content != h.content || g.dict != h.dict || g.checksum != h.checksum {
			t.Errorf("descriptor %#x: %+v became %+v, %v", descriptor, h, g, err)
		}
	}
	for n := uint64(1); n < 1<<27; n = n*5/3 + 1 {
		b, w := windowFor(n)
		if base := uint64(1) << (10 + b>>3); w < n || w != base+base/8*uint64(b&7) || b > 0 && w > n+n/8+1 {
			t.Errorf("window for %d bytes: %d, byte %#x", n, w, b)
		}
	}
}
