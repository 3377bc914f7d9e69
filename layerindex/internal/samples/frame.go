package samples

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A FrameWriter makes a zstd frame, RFC 8878, of blocks that are stored or of
// one byte over and over.
type FrameWriter struct{ bytes.Buffer }

// NewFrame begins a frame with a window of at least 128 MiB or of 1 MiB.
func NewFrame(large bool) *FrameWriter {
	f := new(FrameWriter)
	window := byte(10 << 3)
	if large {
		window = 17 << 3
	}
	f.Write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, window})
	return f
}

// Block appends a block of a kind: 0 stored, 1 one byte over and over.
func (f *FrameWriter) Block(kind, size int, last bool, content ...byte) {
	n := size<<3 | kind<<1
	if last {
		n |= 1
	}
	f.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	f.Write(content)
}

// Bomb returns a tar with a file of n zeros, and that as one small zstd frame.
func Bomb(t testing.TB, n int, large bool) (tarSize int64, blob []byte, diffID digest.Digest) {
	t.Helper()
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: int64(n)}); err != nil {
		t.Fatal(err)
	}
	const piece = 128 << 10
	n = (n + piece - 1) / piece * piece // and what is left over ends the tar
	sum := sha256.New()
	sum.Write(head.Bytes())
	f := NewFrame(large)
	f.Block(0, head.Len(), false, head.Bytes()...)
	if _, err := io.CopyN(sum, Zeros{}, int64(n+piece)); err != nil {
		t.Fatal(err)
	}
	for at := 0; at <= n; at += piece {
		f.Block(1, piece, at == n, 0)
	}
	return int64(head.Len() + n + piece), f.Bytes(), digest.NewDigest(digest.SHA256, sum)
}

// Zeros is a reader of zeros without end.
type Zeros struct{}

func (Zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
