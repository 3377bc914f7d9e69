package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
)

// FuzzInflate checks that compress/flate and this package accept the same
// streams and give the same bytes.
func FuzzInflate(f *testing.F) {
	for _, stream := range refused() {
		f.Add(stream)
	}
	for _, stream := range streams(f, sample(300, 1)) {
		f.Add(stream)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	for kind := range 3 {
		var w inflatetest.Writer
		writeBlock(&w, rng, kind, true)
		f.Add(w.Bytes())
	}
	d := NewDecoder(nil, 0)
	f.Fuzz(func(t *testing.T, stream []byte) {
		std := bytes.NewReader(stream)
		want, stdErr := io.ReadAll(io.LimitReader(flate.NewReader(std), 64<<20))
		if len(want) == 64<<20 {
			t.Skip("bomb")
		}
		for i, src := range []io.Reader{
			bytes.NewReader(stream),
			iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			d.Reset(src, 0, 0)
			got, err := decodeAll(d)
			if (err == nil) != (stdErr == nil) {
				t.Fatalf("reader %d: got %v, compress/flate %v", i, err, stdErr)
			}
			if err != nil && !errors.Is(err, codec.ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("reader %d: unexpected kind of error %v", i, err)
			}
			if err == nil && !bytes.Equal(got, want) {
				t.Fatalf("reader %d: got %d bytes, compress/flate %d, and they differ", i, len(got), len(want))
			}
			if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
				t.Fatalf("reader %d: bytes before the error %v differ", i, err)
			}
			if used := len(stream) - std.Len(); err == nil && d.In() != int64(used) {
				t.Fatalf("reader %d: stream ends at %d, compress/flate says %d", i, d.In(), used)
			}
		}
	})
}

// FuzzResume checks that decoding from wherever it can be resumed, with
// nothing right in the window but what was found to be needed, is like
// decoding from the start.
func FuzzResume(f *testing.F) {
	f.Add([]byte("abcdefgh"), uint64(1), uint16(0), uint8(6))
	f.Add([]byte("\x00\x00\x01"), uint64(2), uint16(100), uint8(1))
	f.Add([]byte("the quick brown fox"), uint64(3), uint16(7), uint8(9))
	f.Add([]byte{}, uint64(4), uint16(999), uint8(11))
	d := NewDecoder(nil, 0)
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, symbols uint16, level uint8) {
		want := expand(data, seed)
		flush := 0
		if level >= 128 {
			flush = 1 + int(seed%50_000)
		}
		stream := encoded(t, want, flush, func(w io.Writer) (io.WriteCloser, error) {
			return flate.NewWriter(w, int(level%12)-2)
		})
		cps := places(t, stream, int(symbols))
		for i, cp := range cps {
			// The first, the last, and some between.
			if i < 2 || i > len(cps)-2 || i%4 == int(seed%4) {
				checkResume(t, d, stream, want, cp)
			}
		}
	})
}

// expand makes data of up to 300 KB with matches at all distances.
func expand(data []byte, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := append([]byte{1}, data...)
	for n := rng.IntN(300_000); len(p) < n; {
		if rng.IntN(3) == 0 {
			p = append(p, byte(rng.Uint32()), byte(rng.Uint32()))
		}
		from := rng.IntN(len(p))
		p = append(p, p[from:min(len(p), from+rng.IntN(300))]...)
	}
	return p
}
