package tarball

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd frame can make the decoder allocate. It is
// what the zstd tool takes without being told to.
const maxWindow = 128 << 20

// Decompress returns the content of r without its compression, which may be
// gzip, zstd, bzip2 or none, and whether there was one. xz is an error. When
// ctx ends, reading does too, of either side: a little input can have very much
// content. The caller must close the result; that does not close r.
func Decompress(ctx context.Context, r io.Reader) (content io.ReadCloser, compressed bool, err error) {
	content, compressed, err = decompress(ctx, r)
	if err != nil {
		return nil, compressed, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&contextReader{ctx, content}, content}, compressed, nil
}

func decompress(ctx context.Context, r io.Reader) (content io.ReadCloser, compressed bool, err error) {
	br := bufio.NewReaderSize(&contextReader{ctx, r}, 64<<10)
	magic, err := br.Peek(10)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b, 8}):
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, true, err
		}
		return zr, true, nil
	case isZstd(magic):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, true, err
		}
		return zr.IOReadCloser(), true, nil
	case isBzip2(magic):
		return io.NopCloser(bzip2.NewReader(br)), true, nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		return nil, true, errors.New("it is compressed with xz, which imgfs does not read; unpack it with xz -d")
	}
	return io.NopCloser(br), false, nil
}

// isBzip2 tells whether a bzip2 stream begins with magic: its header and that
// of a block or of the end. The header alone could be the name of a tar's
// first entry.
func isBzip2(magic []byte) bool {
	return len(magic) == 10 && bytes.HasPrefix(magic, []byte("BZh")) &&
		(string(magic[4:]) == "1AY&SY" || string(magic[4:]) == "\x17\x72\x45\x38\x50\x90")
}

// isZstd tells whether a zstd frame begins with magic, or a skippable frame
// (RFC 8878, section 3.1.2), as pzstd writes them.
func isZstd(magic []byte) bool {
	return bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18})
}

// A contextReader is a reader that ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
