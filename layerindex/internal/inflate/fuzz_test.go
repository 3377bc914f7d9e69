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
	// What is big is kept: making it anew takes longer than all the rest.
	d, finder := NewDecoder(nil, 0), NewDecoder(nil, 0)
	writers := map[int]*flate.Writer{}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, symbols uint16, level uint8) {
		want := expand(data, seed)
		flush := 0
		if level >= 128 {
			flush = 1 + int(seed%50_000)
		}
		stream := encoded(t, want, max(flush, min(flush*100, len(want)/50)), func(w io.Writer) (io.WriteCloser, error) {
			return keptWriter(writers, w, int(level%12)-2)
		})
		cps := places(t, finder, stream, max(int(symbols), len(want)/200*min(1, int(symbols))))
		// Of one place all that is behind it, and of a few as much as uses up
		// the window and begins another.
		rng := rand.New(rand.NewPCG(seed, 1))
		for i := range min(len(cps), 6) {
			most := 70_000
			if i == 0 {
				most = len(want)
			}
			checkResume(t, d, stream, want, cps[rng.IntN(len(cps))], most)
		}
	})
}

// keptWriter is flate.NewWriter, which allocates a megabyte, with a writer for
// each level.
func keptWriter(writers map[int]*flate.Writer, w io.Writer, level int) (*flate.Writer, error) {
	if kept := writers[level]; kept != nil {
		kept.Reset(w)
		return kept, nil
	}
	made, err := flate.NewWriter(w, level)
	writers[level] = made
	return made, err
}

// expand makes data of up to 300 KB with matches at all distances, and mostly
// much less: whether there are more bytes than a window is what matters.
func expand(data []byte, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := append([]byte{1}, data...)
	most := []int{300, 3000, 40_000, 80_000, 300_000}[min(rng.IntN(9), rng.IntN(9))*5/9]
	for n := rng.IntN(most); len(p) < n; {
		if rng.IntN(3) == 0 {
			p = append(p, byte(rng.Uint32()), byte(rng.Uint32()))
		}
		from := rng.IntN(len(p))
		p = append(p, p[from:min(len(p), from+rng.IntN(300))]...)
	}
	return p
}
