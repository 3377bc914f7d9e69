package soci

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/magic"
)

// ErrUnsupported says that SOCI has no ztocs for layers like this one: compressed with
// zstd, or with entries that a ztoc cannot describe. It comes wrapped.
var ErrUnsupported = errors.New("no ztoc can describe the layer")

// BuildOptions are the choices of Build. Nil and zero mean the defaults.
type BuildOptions struct {
	// SpanSize is how many bytes of the uncompressed layer a span has at least, but
	// for the last one. A span of a gzip layer goes on to where a DEFLATE block ends
	// and has more than 32 KiB. Default: 4 MiB, as SOCI's.
	SpanSize int64
	// Tool is what the ztoc says that it was made by. Default: "imgfs".
	Tool string
	// Progress, if not nil, is called now and then with the number of bytes of the
	// blob that have been read.
	Progress func(in int64)
}

const (
	// DefaultSpanSize is the size of spans if none is asked for.
	DefaultSpanSize = 4 << 20
	defaultTool     = "imgfs"
	pieceSize       = 256 << 10
)

// Build makes the ztoc of a layer while it reads the blob from src once, and checks the
// blob's size and digest. It is for one goroutine, and starts none.
//
// Errors wrap ErrUnsupported, for which the blob is read no further; or ErrDigest,
// ErrCompressed or ErrTar of package layerindex; or are the error of src or ctx.Err(). If
// the blob is not the one that the manifest names, the error is ErrDigest, whatever is
// wrong with the stream or the tar.
func Build(ctx context.Context, l layerindex.Layer, src io.Reader, opts *BuildOptions) ([]byte, error) {
	if opts == nil {
		opts = &BuildOptions{}
	}
	o := *opts
	if o.SpanSize == 0 {
		o.SpanSize = DefaultSpanSize
	}
	if o.SpanSize < 0 || o.SpanSize > layerindex.MaxSize {
		return nil, fmt.Errorf("span size %d is out of range", o.SpanSize)
	}
	if o.Tool == "" {
		o.Tool = defaultTool
	}
	want, err := sha256Of(l.Digest)
	if err != nil {
		return nil, err
	}
	blob := &blobReader{ctx: ctx, src: io.LimitReader(src, l.Size+1), hash: sha256.New(), progress: o.Progress}
	z, err := readLayer(ctx, blob, l.Size, &o)
	if errors.Is(err, ErrUnsupported) {
		return nil, err
	}
	if _, drained := io.Copy(io.Discard, blob); drained != nil {
		return nil, drained
	}
	switch got := [sha256.Size]byte(blob.hash.Sum(nil)); {
	case blob.n != l.Size:
		return nil, fmt.Errorf("%w: it has %d bytes or more, not %d", layerindex.ErrDigest, blob.n, l.Size)
	case got != want:
		return nil, fmt.Errorf("%w: its digest is sha256:%x", layerindex.ErrDigest, got)
	}
	return z, err
}

// readLayer makes the ztoc of a blob that should have size bytes.
func readLayer(ctx context.Context, blob io.Reader, size int64, o *BuildOptions) ([]byte, error) {
	r := bufio.NewReaderSize(blob, pieceSize)
	head, err := r.Peek(tarBlock)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var out layer
	switch format := magic.Of(head); {
	case !format.Compression || magic.IsTar(head):
		out = newPlainLayer(r, o.SpanSize)
	case format.Name == "gzip":
		out = newGzipLayer(ctx, r, o.SpanSize)
	default:
		return nil, fmt.Errorf("%w: it is compressed with %s", ErrUnsupported, format.Name)
	}
	w := newWriter()
	tarSize, err := addEntries(w, out)
	if err != nil {
		return nil, err
	}
	return w.finish(out, summary{tool: o.Tool, blobSize: size, tarSize: tarSize})
}

// A layer is the uncompressed layer. At io.EOF it knows its spans.
type layer interface {
	io.Reader
	// failed returns the error other than io.EOF that Read has returned.
	failed() error
	// spans returns the algorithm, the places where spans begin as a ztoc has them,
	// and the digests of the spans.
	spans() (algorithm byte, checkpoints []byte, sums [][sha256.Size]byte)
}

// addEntries reads the tar to its end and then the rest of the layer, and returns where
// the tar ends. As SOCI's builder it leaves it to archive/tar what the entries are, and
// where their contents begin.
func addEntries(w *writer, from layer) (int64, error) {
	counted := &countingReader{r: from}
	tr := tar.NewReader(counted)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			end := counted.n
			_, _ = io.Copy(io.Discard, from) // a damaged stream may seem to be a damaged tar
			if failed := from.failed(); failed != nil {
				return 0, failed
			}
			return 0, fmt.Errorf("%w: at offset %d: %w", layerindex.ErrTar, end, err)
		}
		if err := w.addEntry(h, counted.n); err != nil {
			return 0, err
		}
	}
	end := counted.n
	_, err := io.Copy(io.Discard, from)
	return end, err
}

// A blobReader reads and hashes the blob.
type blobReader struct {
	ctx      context.Context
	src      io.Reader
	hash     hash.Hash
	n        int64
	progress func(int64)
}

func (b *blobReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.src.Read(p)
	b.hash.Write(p[:n])
	if b.n += int64(n); b.progress != nil {
		b.progress(b.n)
	}
	return n, err
}

// A countingReader knows where in the tar its reader is.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
