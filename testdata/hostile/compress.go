package hostile

import (
	"bufio"
	"bytes"

	"github.com/klauspost/compress/gzip"
)

// gzipMember returns data as one gzip member.
func gzipMember(data []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // of a constant level
	}
	z.Write(data)
	z.Close()
	return b.Bytes()
}

// frame begins a zstd frame without a checksum whose window has 2^exp bytes
// (RFC 8878, section 3.1.1).
func frame(w *bufio.Writer, exp int) {
	w.WriteString("\x28\xb5\x2f\xfd\x00")
	w.WriteByte(byte((exp - 10) << 3))
}

// Block types of RFC 8878, section 3.1.1.2.
const (
	rawBlock = 0
	rleBlock = 1
	maxBlock = 128 << 10
)

func blockHeader(w *bufio.Writer, kind, size int, last bool) {
	v := size<<3 | kind<<1
	if last {
		v |= 1
	}
	w.Write([]byte{byte(v), byte(v >> 8), byte(v >> 16)})
}

// raw writes data as blocks that are not compressed.
func raw(w *bufio.Writer, data []byte, last bool) {
	for {
		n := min(len(data), maxBlock)
		blockHeader(w, rawBlock, n, last && n == len(data))
		w.Write(data[:n])
		if data = data[n:]; len(data) == 0 {
			return
		}
	}
}

// rle writes n zeros, of which four bytes of the frame make 128 KiB.
func rle(w *bufio.Writer, n int64, last bool) {
	for n > 0 {
		size := min(n, maxBlock)
		n -= size
		blockHeader(w, rleBlock, int(size), last && n == 0)
		w.WriteByte(0)
	}
}

// skippable writes an empty skippable frame.
func skippable(w *bufio.Writer) { w.WriteString("\x50\x2a\x4d\x18\x00\x00\x00\x00") }
