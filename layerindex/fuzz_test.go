package layerindex

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
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
		tarBytes := tarOf(t, "file", content)
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
		file := encoded(t, mustBuild(t, blob, tarBytes, &BuildOptions{SpanSize: 8}))
		x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		checkPoisoned(t, x, blob, tarBytes)
		r := NewReader(x, memBlob(blob), &ReaderOptions{Cache: NewSpanCache(100_000)})
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

// FuzzIndexFile changes bytes of an index file and puts its checksums right
// again. Whatever it says then, reading it ends, with no other error than one
// about the index or the layer.
func FuzzIndexFile(f *testing.F) {
	tarBytes := testTar(f, 60_000)
	var files, blobs [][]byte
	for _, c := range codecs {
		blob := c.wrap(f, bytes.Clone(tarBytes))
		blobs = append(blobs, blob)
		files = append(files, encoded(f, mustBuild(f, blob, tarBytes, &BuildOptions{SpanSize: 8, ChunkSize: 4096})))
	}
	f.Add(uint8(1), []byte{0, 0, 0, 1})
	f.Add(uint8(1), []byte{96, 0, 0, 0xff, 112, 0, 1, 3})
	f.Add(uint8(5), []byte{144, 0, 4, 7, 16, 0, 0, 1})
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		i := int(which) % len(files)
		b := bytes.Clone(files[i])
		// Two bytes of each change say where, one how to get on from there.
		for ; len(changes) >= 4; changes = changes[4:] {
			at := int(binary.LittleEndian.Uint16(changes)) % len(b)
			b[(at+int(changes[2]))%len(b)] ^= changes[3]
		}
		fixSums(b)
		x, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = readEverything(b)
		}
		if err != nil && !errors.Is(err, ErrIndex) {
			t.Fatalf("%v, want %v", err, ErrIndex)
		}
		if x == nil || x.Size() > 1<<20 {
			return // more than there is room for
		}
		r := NewReader(x, memBlob(blobs[i]), &ReaderOptions{Cache: NewSpanCache(50_000), SpoolDir: t.TempDir()})
		defer r.Close()
		p := make([]byte, 3000)
		for off := int64(0); off < x.Size(); off += x.Size()/8 + 1 {
			_, err := r.ReadAt(context.Background(), p, off)
			var at *codec.Error
			if err != nil && err != io.EOF && !errors.Is(err, ErrIndex) && !errors.As(err, &at) && !harmlessError(err) {
				t.Fatalf("ReadAt(%d): %T %v", off, err, err)
			}
		}
	})
}

// harmlessError is for errors that name no value of ours: of a checkpoint that
// cannot be one.
func harmlessError(err error) bool {
	return bytes.Contains([]byte(err.Error()), []byte("checkpoint"))
}

// fixSums computes the checksums of an index file anew, as far as its table
// can be followed.
func fixSums(b []byte) {
	le := binary.LittleEndian
	n := min(int(le.Uint32(b[120:])), maxSections)
	if len(b) < headerLen(n) {
		return
	}
	for i := range n {
		row := b[fixedHeader+i*sectionRow:]
		off, size := le.Uint64(row[8:]), le.Uint64(row[16:])
		if off <= uint64(len(b)) && size <= uint64(len(b))-off {
			sum := sha256.Sum256(b[off : off+size])
			copy(row[32:], sum[:])
		}
	}
	body := b[:headerLen(n)-sha256.Size]
	sum := sha256.Sum256(body)
	copy(b[len(body):], sum[:])
}
