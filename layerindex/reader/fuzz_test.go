package reader

import (
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"

	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/klauspost/compress/zstd"
)

// FuzzRead builds layers with checkpoints as dense as can be, and reads them
// through the index file: every span, entered at its checkpoint with the
// window poisoned, and ranges, are what was packed.
func FuzzRead(f *testing.F) {
	f.Add([]byte("abcdefgh"), uint64(1), uint8(6))
	f.Add([]byte("\x00\x00\x01"), uint64(2), uint8(0))
	f.Add([]byte("the quick brown fox"), uint64(3), uint8(109))
	f.Add([]byte{}, uint64(4), uint8(211))
	packers := keepPackers(f)
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, how uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		content := append([]byte{1}, data...)
		// Mostly little: whether there are more bytes than a window matters.
		most := []int{300, 3000, 40_000, 80_000, 200_000}[min(rng.IntN(9), rng.IntN(9))*5/9]
		for n := rng.IntN(most); len(content) < n; {
			if rng.IntN(3) == 0 {
				content = append(content, byte(rng.Uint32()), byte(rng.Uint32()))
			}
			from := rng.IntN(len(content))
			content = append(content, content[from:min(len(content), from+rng.IntN(300))]...)
		}
		tarBytes := samples.TarOf(t, "file", content)
		var blob []byte
		switch how / 64 {
		case 0, 1: // several members
			for rest := tarBytes; len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(max(150_000, len(rest))))
				if rng.IntN(2) == 0 {
					n = min(len(rest), 1+rng.IntN(20_000))
				}
				blob = append(blob, packers.packed(t, rest[:n], int(how%12)-2)...)
				rest = rest[n:]
			}
		case 2:
			blob = flushed(t, tarBytes, how%2 == 0)
		default:
			size := 1 + rng.IntN(len(tarBytes))
			for part := range slices.Chunk(tarBytes, max(size, len(tarBytes)/20)) {
				blob = packers.zstd.EncodeAll(part, blob)
			}
		}
		file := encoded(t, mustBuild(t, blob, tarBytes, &build.Options{SpanSize: 8}))
		x, err := layerindex.ReadIndex(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		checkPoisoned(t, x, blob, tarBytes)
		r := New(x, samples.Blob(blob), &Options{Cache: NewSpanCache(100_000)})
		defer r.Close()
		for range 10 {
			checkRead(t, r, tarBytes, rng.Int64N(int64(len(tarBytes))), rng.Int64N(60_000))
		}
	})
}

// Kept packers are those of FuzzRead: to make one takes longer than to use it.
type keptPackers struct {
	gzip map[int]*stdgzip.Writer
	zstd *zstd.Encoder
}

func keepPackers(f *testing.F) *keptPackers {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	return &keptPackers{map[int]*stdgzip.Writer{}, e}
}

func (k *keptPackers) packed(t *testing.T, b []byte, level int) []byte {
	return written(t, b, func(w io.Writer) (io.WriteCloser, error) {
		if kept := k.gzip[level]; kept != nil {
			kept.Reset(w)
			return kept, nil
		}
		made, err := stdgzip.NewWriterLevel(w, level)
		k.gzip[level] = made
		return made, err
	})
}
