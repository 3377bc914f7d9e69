package tarball

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/nameless"
)

const (
	// unpackBuffer is how much is written at a time.
	unpackBuffer = 256 << 10
	// maxTrailer is how much may stand behind the end of a tar: programs fill
	// up the last record, and a checksum comes at the end of all.
	maxTrailer = 64 << 20
)

// unpack makes an archive of the tar that r gives, in a temporary file. It
// looks at each header before it takes what comes behind it.
func unpack(ctx context.Context, r io.Reader, opts *remote.ArchiveOptions) (*Archive, error) {
	in := bufio.NewReaderSize(r, unpackBuffer)
	if err := peekStart(in); err != nil {
		return nil, err
	}
	file, err := newTemp(opts)
	if err != nil {
		return nil, fmt.Errorf("unpacking it to a temporary file: %w", err)
	}
	a, err := unpackTo(ctx, file, in, opts.Limit())
	if err != nil {
		file.Close()
		return nil, err
	}
	return a, nil
}

// peekStart is checkStart without reading.
func peekStart(in *bufio.Reader) error {
	block, err := in.Peek(blockSize)
	if err != nil && err != io.EOF {
		return fmt.Errorf("unpacking it: %w", err)
	}
	return checkStart(bytes.NewReader(block))
}

func newTemp(opts *remote.ArchiveOptions) (remote.TempFile, error) {
	if opts.NewTemp != nil {
		return opts.NewTemp()
	}
	return nameless.Create(nameless.Dir(), 0)
}

func unpackTo(ctx context.Context, file remote.TempFile, in *bufio.Reader, most int64) (*Archive, error) {
	if most == 0 {
		most = math.MaxInt64
	}
	to := &offsetWriter{file: file, max: most}
	buffered := bufio.NewWriterSize(to, unpackBuffer)
	copied := &countingReader{r: io.TeeReader(in, buffered)}
	s := newScan(flushing{buffered, file}, most, tooBig(most))
	err := s.run(ctx, copied, func() int64 { return copied.n })
	if err == nil {
		err = buffered.Flush()
	}
	if to.err != nil {
		// Before what the reader of headers makes of it.
		return nil, fmt.Errorf("unpacking it to a temporary file: %w", to.err)
	}
	if err == nil {
		err = readTrailer(in)
	}
	if err != nil {
		return nil, err
	}
	return newArchive(file, s, most), nil
}

// A flushing reads what was written to a file through a buffer.
type flushing struct {
	buffer *bufio.Writer
	file   io.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (f flushing) ReadAt(p []byte, off int64) (int, error) {
	if err := f.buffer.Flush(); err != nil {
		return 0, err
	}
	return f.file.ReadAt(p, off)
}

func tooBig(most int64) error {
	return fmt.Errorf("%w: unpacked it has more than the %d bytes allowed", remote.ErrTooBig, most)
}

// readTrailer reads what stands behind the end of a tar, so that a wrong
// checksum, or a file that was cut, is noticed.
func readTrailer(in io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(in, maxTrailer+1))
	if err != nil {
		return fmt.Errorf("unpacking it: %w", err)
	}
	if n > maxTrailer {
		return fmt.Errorf("more than %d bytes follow the end of its tar", maxTrailer)
	}
	return nil
}

// An offsetWriter writes a file from its start, up to max bytes.
type offsetWriter struct {
	file io.WriterAt
	off  int64
	max  int64
	err  error
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	if w.err == nil && int64(len(p)) > w.max-w.off {
		w.err = tooBig(w.max)
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.file.WriteAt(p, w.off)
	w.off += int64(n)
	w.err = err
	return n, err
}

// A countingReader counts what was read.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
