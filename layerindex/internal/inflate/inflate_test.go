package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	kflate "github.com/klauspost/compress/flate"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// decodeAll returns all output up to the end or an error.
func decodeAll(d *Decoder) ([]byte, error) { return decodeSome(d, math.MaxInt) }

// decodeSome decodes until there are n bytes, or more, or the end.
func decodeSome(d *Decoder, n int) ([]byte, error) {
	var got []byte
	for {
		e, err := d.Next()
		got = append(got, d.Take()...)
		if err != nil || e == End || len(got) > n {
			return got, err
		}
	}
}

// inflated decodes a stream.
func inflated(stream []byte) ([]byte, error) {
	return decodeAll(NewDecoder(bytes.NewReader(stream), 0))
}

// sample returns n bytes with the matches, near and far, runs and noise of a
// layer.
func sample(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 400)
	for i := range words {
		words[i] = make([]byte, 2+rng.IntN(9))
		for j := range words[i] {
			words[i][j] = "etaoinshrdlucmfwypvbgkjqxz_(){}0123."[min(rng.IntN(36), rng.IntN(36))]
		}
	}
	p := make([]byte, 0, n+70000)
	for len(p) < n {
		switch k := rng.IntN(100); {
		case k < 80:
			for range 1 + rng.IntN(200) {
				p = append(p, words[min(rng.IntN(400), rng.IntN(400))]...)
				p = append(p, ' ')
			}
		case k < 88 && len(p) > 0:
			from := max(0, len(p)-1-rng.IntN(40000))
			p = append(p, p[from:min(len(p), from+3+rng.IntN(2000))]...)
		case k < 93:
			p = append(p, bytes.Repeat([]byte{byte(rng.IntN(256))}, 1+rng.IntN(3000))...)
		case k < 97:
			pattern := words[rng.IntN(400)]
			p = append(p, bytes.Repeat(pattern, 1+rng.IntN(60))...)
		default:
			for range rng.IntN(6000) {
				p = append(p, byte(rng.Uint32()))
			}
		}
	}
	return p[:n]
}

// encoded compresses p, with a flush after every so many bytes if not 0.
func encoded(t testing.TB, p []byte, flush int, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := open(&buf)
	if err != nil {
		t.Fatal(err)
	}
	for len(p) > 0 {
		n := len(p)
		if flush > 0 {
			n = min(n, flush)
		}
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		if flush > 0 {
			if err := w.(interface{ Flush() error }).Flush(); err != nil {
				t.Fatal(err)
			}
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// streams returns encodings of p by name.
func streams(t testing.TB, p []byte) map[string][]byte {
	all := map[string][]byte{}
	for level := flate.HuffmanOnly; level <= 9; level++ {
		open := func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, level) }
		all[fmt.Sprintf("std %d", level)] = encoded(t, p, 0, open)
		if level == 1 || level == 6 {
			all[fmt.Sprintf("std %d flushed", level)] = encoded(t, p, 1000, open)
		}
	}
	for level := kflate.HuffmanOnly; level <= 9; level++ {
		open := func(w io.Writer) (io.WriteCloser, error) { return kflate.NewWriter(w, level) }
		all[fmt.Sprintf("klauspost %d", level)] = encoded(t, p, 0, open)
	}
	all["klauspost stateless"] = encoded(t, p, 0, func(w io.Writer) (io.WriteCloser, error) {
		return kflate.NewStatelessWriter(w), nil
	})
	return all
}

func TestEncoders(t *testing.T) {
	testenv.Slow(t)
	for _, n := range []int{0, 1, 100, 70_000, inflatetest.Scale(1_200_000)} {
		want := sample(n, uint64(n))
		for name, stream := range streams(t, want) {
			got, err := inflated(stream)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s of %d bytes: got %d bytes, %v; equal %v", name, n, len(got), err, bytes.Equal(got, want))
			}
		}
	}
}

// TestSlowSource checks that it does not matter in what pieces input comes, and
// that what follows a stream is left alone.
func TestSlowSource(t *testing.T) {
	want := sample(inflatetest.Scale(200_000), 5)
	for name, stream := range streams(t, want) {
		for i, src := range []io.Reader{
			iotest.OneByteReader(bytes.NewReader(append(stream, "behind"...))),
			iotest.HalfReader(bytes.NewReader(append(stream, "behind"...))),
			iotest.DataErrReader(bytes.NewReader(append(stream, "behind"...))),
		} {
			d := NewDecoder(src, 1000)
			got, err := decodeAll(d)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s, reader %d: got %d bytes, %v", name, i, len(got), err)
			}
			if in := d.In(); in != 1000+int64(len(stream)) {
				t.Errorf("%s, reader %d: ends at %d, want %d", name, i, in, 1000+len(stream))
			}
			for _, c := range []byte("behind") {
				if b, err := d.ReadByte(); b != c || err != nil {
					t.Errorf("%s, reader %d: behind the stream %q, %v, want %q", name, i, b, err, c)
				}
			}
			if _, err := d.ReadByte(); err != io.EOF {
				t.Errorf("%s, reader %d: at the end %v, want EOF", name, i, err)
			}
		}
	}
}

// randomCode returns the lengths of a complete code over n symbols, some of them
// with the most bits there can be.
func randomCode(rng *rand.Rand, n int) []uint8 {
	lengths := []uint8{0}
	for len(lengths) < n {
		i := rng.IntN(len(lengths))
		if rng.IntN(3) == 0 {
			i = len(lengths) - 1
		}
		if lengths[i] < maxCode {
			lengths[i]++
			lengths = append(lengths, lengths[i])
		}
	}
	rng.Shuffle(n, func(i, j int) { lengths[i], lengths[j] = lengths[j], lengths[i] })
	return lengths
}

// writeBlock writes a block of the given kind with all lengths and distances
// that are possible at this point.
func writeBlock(w *inflatetest.Writer, rng *rand.Rand, kind int, final bool) {
	switch kind {
	case 0:
		w.Stored(final, sample(1+rng.IntN(500), rng.Uint64()))
		return
	case 1:
		w.Fixed(final)
	default:
		w.Dynamic(final, randomCode(rng, 286), randomCode(rng, 30))
	}
	for range 500 {
		if len(w.Want) == 0 || rng.IntN(3) > 0 {
			w.Literals(byte(rng.Uint32()))
			continue
		}
		reach := min(len(w.Want), windowSize)
		w.Match(3+rng.IntN(256), 1+rng.IntN(1+rng.IntN(reach)))
	}
	w.End()
}

// TestBitOffsets has blocks of all kinds begin at all offsets in a byte.
func TestBitOffsets(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for kind := range 3 {
		seen := 0
		for seed := 0; seen != 0xff && seed < 1000; seed++ {
			var w inflatetest.Writer
			writeBlock(&w, rng, 1+seed&1, false)
			seen |= 1 << (w.BitOffset() & 7)
			at := w.BitOffset()
			writeBlock(&w, rng, kind, false)
			writeBlock(&w, rng, 1, true)
			checkBoth(t, fmt.Sprintf("kind %d at bit %d", kind, at&7), w.Bytes(), w.Want)
		}
		if seen != 0xff {
			t.Errorf("kind %d: bit offsets seen %#b, want all", kind, seen)
		}
	}
}

// checkBoth checks that a stream gives want, here and with compress/flate.
func checkBoth(t *testing.T, name string, stream, want []byte) {
	t.Helper()
	std, err := io.ReadAll(flate.NewReader(bytes.NewReader(stream)))
	if err != nil || !bytes.Equal(std, want) {
		t.Fatalf("%s: compress/flate disagrees with the test: %d bytes, want %d, %v", name, len(std), len(want), err)
	}
	got, err := inflated(stream)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes, want %d, equal %v, %v", name, len(got), len(want), bytes.Equal(got, want), err)
	}
}

// TestOverlap has all short distances with all lengths, and all lengths at the
// longest distances.
func TestOverlap(t *testing.T) {
	var w inflatetest.Writer
	w.Stored(false, sample(windowSize, 9))
	w.Fixed(true)
	for _, dist := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 31, 32, 33, 257, 258, 32767, 32768} {
		for length := 3; length <= 258; length++ {
			w.Match(length, dist)
			w.Literals(byte(length), byte(dist), 7, 99, 3, 250, 1)
		}
	}
	w.End()
	checkBoth(t, "overlaps", w.Bytes(), w.Want)
}

// refused are streams that are damaged, not just cut off.
func refused() map[string][]byte {
	all := map[string][]byte{}
	add := func(name string, write func(w *inflatetest.Writer)) {
		var w inflatetest.Writer
		write(&w)
		w.Bits(0, 32) // so that it is not too short
		all[name] = append(w.Bytes(), make([]byte, 100)...)
	}
	lengths := func(n int, set map[int]uint8) []uint8 {
		l := make([]uint8, n)
		for i, v := range set {
			l[i] = v
		}
		return l
	}
	ok := lengths(257, map[int]uint8{'a': 1, 256: 1})
	add("block type 3", func(w *inflatetest.Writer) { w.Bits(7, 3) })
	add("stored length", func(w *inflatetest.Writer) { w.Bits(1, 8); w.Bits(5, 16); w.Bits(5, 16) })
	add("distance before start", func(w *inflatetest.Writer) { w.Fixed(true); w.Literals('a'); w.Match(3, 2); w.End() })
	add("distance at start", func(w *inflatetest.Writer) { w.Fixed(true); w.Match(3, 1); w.End() })
	add("oversubscribed literals", func(w *inflatetest.Writer) {
		w.Dynamic(true, lengths(257, map[int]uint8{1: 1, 2: 1, 256: 1}), []uint8{1})
	})
	add("incomplete literals", func(w *inflatetest.Writer) {
		w.Dynamic(true, lengths(257, map[int]uint8{1: 2, 256: 2}), []uint8{1})
	})
	add("one literal of two bits", func(w *inflatetest.Writer) {
		w.Dynamic(true, lengths(257, map[int]uint8{256: 2}), []uint8{1})
	})
	add("no literals", func(w *inflatetest.Writer) { w.Dynamic(true, lengths(257, nil), []uint8{1}) })
	add("oversubscribed distances", func(w *inflatetest.Writer) { w.Dynamic(true, ok, []uint8{1, 1, 1}) })
	add("incomplete distances", func(w *inflatetest.Writer) { w.Dynamic(true, ok, []uint8{2, 2}) })
	add("287 literals", func(w *inflatetest.Writer) { w.Dynamic(true, randomCode(rand.New(rand.NewPCG(1, 1)), 287), []uint8{1}) })
	add("31 distances", func(w *inflatetest.Writer) { w.Dynamic(true, ok, randomCode(rand.New(rand.NewPCG(1, 1)), 31)) })
	add("no distance code", func(w *inflatetest.Writer) {
		w.Dynamic(true, lengths(258, map[int]uint8{256: 1, 257: 1}), []uint8{0})
		w.Bits(1, 1) // length 3
	})
	add("half of a distance code", func(w *inflatetest.Writer) {
		w.Dynamic(true, lengths(258, map[int]uint8{'a': 2, 256: 2, 257: 1}), []uint8{1})
		w.Literals('a')
		w.Bits(0, 1) // length 3
		w.Bits(1, 1)
	})
	add("fixed literal 286", func(w *inflatetest.Writer) { w.Bits(3, 3); w.Bits(0b01100011, 8) })
	add("fixed distance 30", func(w *inflatetest.Writer) {
		w.Fixed(true)
		w.Literals('a')
		w.Bits(0b1000000, 7) // length 3
		w.Bits(0b01111, 5)
	})
	add("repetition at start", func(w *inflatetest.Writer) {
		w.Bits(5, 3)
		w.Bits(0, 14)
		w.Bits(1, 3) // only the code length code 16, and 17
		w.Bits(1, 3)
		w.Bits(0, 6)
	})
	add("repetition too long", func(w *inflatetest.Writer) {
		w.Bits(5, 3)
		w.Bits(0, 14)
		w.Bits(0, 6) // only the code length code 18, and 0
		w.Bits(1, 3)
		w.Bits(1, 3)
		w.Bits(0xff, 8)
		w.Bits(0xff, 8)
		w.Bits(0xff, 8)
	})
	return all
}

func TestRefused(t *testing.T) {
	for name, stream := range refused() {
		_, std := io.ReadAll(flate.NewReader(bytes.NewReader(stream)))
		var corrupt flate.CorruptInputError
		if !errors.As(std, &corrupt) {
			t.Errorf("%s: compress/flate says %v, so the test is wrong", name, std)
		}
		_, err := inflated(stream)
		var at *codec.Error
		if !errors.Is(err, codec.ErrFormat) || !errors.As(err, &at) || at.In > int64(len(stream)) {
			t.Errorf("%s: got %v, want a format error with its place", name, err)
		}
	}
}

// TestDegenerate has the incomplete codes that are allowed.
func TestDegenerate(t *testing.T) {
	lit := make([]uint8, 258)
	lit[256] = 1
	var w inflatetest.Writer
	w.Dynamic(false, lit[:257], []uint8{0})
	w.End()
	lit[256], lit['a'], lit[257] = 2, 2, 1
	w.Dynamic(true, lit, []uint8{1})
	w.Literals('a')
	w.Match(3, 1)
	w.End()
	checkBoth(t, "degenerate codes", w.Bytes(), w.Want)
}

// TestTruncated cuts streams at each byte: what is whole comes out, and nothing
// else, then an error.
func TestTruncated(t *testing.T) {
	d := NewDecoder(nil, 0)
	want := sample(inflatetest.Scale(2000), 3)
	for name, stream := range streams(t, want) {
		for n := range len(stream) {
			std, stdErr := io.ReadAll(flate.NewReader(bytes.NewReader(stream[:n])))
			d.Reset(bytes.NewReader(stream[:n]), 0, 0)
			got, err := decodeAll(d)
			if stdErr != io.ErrUnexpectedEOF || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut at %d: got %v, want unexpected EOF as %v", name, n, err, stdErr)
			}
			if !bytes.HasPrefix(want, got) || len(got) < len(std)-len(std)%len(want) {
				t.Fatalf("%s cut at %d: got %d bytes, not the first of the right ones", name, n, len(got))
			}
			var at *codec.Error
			if !errors.As(err, &at) || at.In != int64(n) {
				t.Fatalf("%s cut at %d: error says %v", name, n, err)
			}
		}
	}
}

// TestReadError checks that an error of the source comes out after what could be
// decoded.
func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	want := sample(100_000, 8)
	for name, stream := range streams(t, want) {
		src := io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), iotest.ErrReader(broken))
		got, err := decodeAll(NewDecoder(src, 0))
		var at *codec.Error
		if !errors.Is(err, broken) || !errors.As(err, &at) || at.In != int64(len(stream)/2) {
			t.Errorf("%s: got %v, want the error of the source at %d", name, err, len(stream)/2)
		}
		if len(got) < 20_000 || !bytes.HasPrefix(want, got) {
			t.Errorf("%s: got %d bytes before the error", name, len(got))
		}
	}
}
