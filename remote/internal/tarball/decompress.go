package tarball

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/imgfs/imgfs/remote/magic"
)

// maxWindow bounds what a zstd frame, or a block of xz, can make the decoder
// allocate. It is what the zstd tool takes without being told to, and twice what xz -9
// writes.
const maxWindow = 128 << 20

// errDictionary: a block of xz says that its dictionary is larger than maxWindow.
var errDictionary = fmt.Errorf("its xz dictionary is larger than the %d MiB that imgfs allows", maxWindow>>20)

// errCompression: Decompress does not know a compression.
var errCompression = errors.New("not a compression that imgfs reads")

// Decompress returns the content of r without its compression, which may be
// gzip, zstd, xz, bzip2 or none, and whether there was one; others are errors. What
// begins with the header of a tar has none, whatever its first name looks like. When
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
	head, err := br.Peek(blockSize)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	format := magic.Of(head)
	if !format.Compression || magic.IsTar(head) {
		return io.NopCloser(br), false, nil
	}
	switch format.Name {
	case "gzip":
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, true, err
		}
		return zr, true, nil
	case "zstd":
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, true, err
		}
		return zr.IOReadCloser(), true, nil
	case "xz":
		zr, err := xz.NewReader(br, maxWindow)
		if err != nil {
			return nil, true, xzError(err)
		}
		return io.NopCloser(xzReader{zr}), true, nil
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(br)), true, nil
	}
	return nil, true, fmt.Errorf("%w: it is compressed with %s", errCompression, format.Name)
}

// An xzReader says in our words what is too much.
type xzReader struct{ *xz.Reader }

// Read implements io.Reader.
func (r xzReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	return n, xzError(err)
}

func xzError(err error) error {
	if errors.Is(err, xz.ErrMemlimit) {
		return errDictionary
	}
	return err
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
