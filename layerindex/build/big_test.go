package build

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// raceFactor is how much longer things may take with the race detector.
var raceFactor = func() time.Duration {
	if inflatetest.Scale(8) != 8 {
		return 10
	}
	return 1
}()

// zeroTar writes a tar of one file of n MiB of zeros, in pieces of 1 MiB and
// less.
func zeroTar(t testing.TB, n int, piece func([]byte)) {
	t.Helper()
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: int64(n) << 20, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	piece(head.Bytes())
	nothing := make([]byte, 1<<20)
	for range n {
		piece(nothing)
	}
	piece(nothing[:1024])
}

// zeroLayer returns zeroTar as one gzip member. It compresses one MiB and
// repeats that.
func zeroLayer(t testing.TB, n int) []byte {
	t.Helper()
	file := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	crc, size := uint32(0), uint32(0)
	packed := map[int][]byte{}
	zeroTar(t, n, func(p []byte) {
		crc = crc32.Update(crc, crc32.IEEETable, p)
		size += uint32(len(p)) // modulo 4 GiB: RFC 1952, 2.3.1
		if packed[len(p)] == nil {
			var buf bytes.Buffer
			w, err := flate.NewWriter(&buf, 6)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(p); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			packed[len(p)] = buf.Bytes()
		}
		file = append(file, packed[len(p)]...)
	})
	file = append(file, 1, 0, 0, 0xff, 0xff) // a last block without content
	file = binary.LittleEndian.AppendUint32(file, crc)
	return binary.LittleEndian.AppendUint32(file, size)
}

// TestOver4GiB has one gzip member of more output than its length field can
// tell, and offsets of more than 32 bits.
func TestOver4GiB(t *testing.T) {
	testenv.Slow(t)
	if inflatetest.Scale(8) != 8 {
		t.Skip("too slow with the race detector: make nightly runs it without")
	}
	const mib = 4<<10 + 3
	blob := zeroLayer(t, mib)
	h := sha256.New()
	size := int64(0)
	zeroTar(t, mib, func(p []byte) { h.Write(p); size += int64(len(p)) })
	l := layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.NewDigest(digest.SHA256, h)}
	x, err := Index(context.Background(), l, bytes.NewReader(blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	if x.Size() != size || x.NumSpans() < mib/5 {
		t.Errorf("%d bytes in %d spans, want %d", x.Size(), x.NumSpans(), size)
	}
	file := encoded(t, x)
	if x, err = layerindex.ReadIndex(bytes.NewReader(file), int64(len(file))); err != nil {
		t.Fatal(err)
	}
	r := reader.New(x, samples.Blob(blob), nil)
	defer r.Close()
	for _, off := range []int64{512, 1<<31 - 100, 1<<32 - 100, 1 << 32, size - 200} {
		p := bytes.Repeat([]byte{1}, 200)
		if n, err := r.ReadAt(context.Background(), p, off); n != 200 || err != nil && err != io.EOF || !bytes.Equal(p, make([]byte, 200)) {
			t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
		}
	}
	// The length field alone is wrong.
	bad := flip(blob, len(blob)-1)
	l.Digest = digest.FromBytes(bad)
	if _, err := Index(context.Background(), l, bytes.NewReader(bad), nil); err == nil {
		t.Error("a wrong length was taken")
	}
}
