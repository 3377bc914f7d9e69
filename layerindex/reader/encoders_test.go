package reader

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/samples"
	kgzip "github.com/klauspost/compress/gzip"
)

// packers are the encoders that layers, or other gzip files, come from.
var packers = []struct {
	name string
	args []string // of a program
	pack func(t testing.TB, b []byte) []byte
}{
	{name: "gzip 1", args: []string{"gzip", "-1"}},
	{name: "gzip 6", args: []string{"gzip", "-6"}},
	{name: "gzip 9", args: []string{"gzip", "-9"}},
	{name: "gzip rsyncable", args: []string{"gzip", "--rsyncable"}},
	{name: "pigz", args: []string{"pigz"}},
	{name: "pigz independent", args: []string{"pigz", "-i", "-b", "128"}},
	{name: "pigz stored", args: []string{"pigz", "-0"}},
	{name: "pigz 11", args: []string{"pigz", "-11", "-I", "1"}},
	{name: "bgzip", args: []string{"bgzip"}},
	{name: "igzip", args: []string{"igzip"}},
	{name: "igzip 0", args: []string{"igzip", "-0"}},
	{name: "libdeflate 1", args: []string{"libdeflate-gzip", "-1"}},
	{name: "libdeflate 12", args: []string{"libdeflate-gzip", "-12"}},
	{name: "zopfli", args: []string{"zopfli", "-c", "--i1", "/dev/stdin"}},
	{name: "Go 1", pack: goPacker(1)},
	{name: "Go 6", pack: goPacker(6)},
	{name: "Go 9", pack: goPacker(9)},
	{name: "Go Huffman only", pack: goPacker(stdgzip.HuffmanOnly)},
	{name: "klauspost 1", pack: klauspostPacker(1)},
	{name: "klauspost 6", pack: klauspostPacker(6)},
	{name: "klauspost 9", pack: klauspostPacker(9)},
	{name: "klauspost stateless", pack: klauspostPacker(kgzip.StatelessCompression)},
	{name: "sync flushes", pack: func(t testing.TB, b []byte) []byte { return flushed(t, b, false) }},
	{name: "full flushes", pack: func(t testing.TB, b []byte) []byte { return flushed(t, b, true) }},
	{name: "members", pack: func(t testing.TB, b []byte) []byte {
		var all []byte
		for p := range slices.Chunk(b, 30_000) {
			all = append(append(all, samples.Gzip(t, p)...), samples.Gzip(t, nil)...)
		}
		return all
	}},
}

func goPacker(level int) func(testing.TB, []byte) []byte {
	return func(t testing.TB, b []byte) []byte {
		return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriterLevel(w, level) })
	}
}

func klauspostPacker(level int) func(testing.TB, []byte) []byte {
	return func(t testing.TB, b []byte) []byte {
		return written(t, b, func(w io.Writer) (io.WriteCloser, error) { return kgzip.NewWriterLevel(w, level) })
	}
}

func written(t testing.TB, b []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := open(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// flushed compresses b with a flush after every 20,000 bytes. After a full one
// (Z_FULL_FLUSH) nothing refers to what is before it.
func flushed(t testing.TB, b []byte, full bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, 6)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(b, 20_000) {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if full {
			w.Reset(&buf)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gzipMember(buf.Bytes(), b)
}

// gzipMember makes a gzip member of a DEFLATE stream.
func gzipMember(stream, want []byte) []byte {
	file := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, stream...)
	file = binary.LittleEndian.AppendUint32(file, crc32.ChecksumIEEE(want))
	return binary.LittleEndian.AppendUint32(file, uint32(len(want)))
}
