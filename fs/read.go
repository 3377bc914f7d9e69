package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"syscall"
)

// ReadAt reads from a regular file, like io.ReaderAt: it returns fewer than
// len(p) bytes only with an error, which is io.EOF at the end of the file.
// Reading a directory is EISDIR, anything else that is no regular file EINVAL.
// If ctx ends first the error wraps ctx.Err().
func (n Node) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	in := n.inode()
	if in.format() != syscall.S_IFREG || len(p) == 0 || off < 0 || off >= in.size {
		return 0, in.noBytes(len(p), off)
	}
	var eof error
	if int64(len(p)) > in.size-off {
		p, eof = p[:in.size-off], io.EOF
	}
	src := &n.t.sources[in.layer]
	if src.content == nil {
		return 0, fmt.Errorf("layer %s: no content", src.name)
	}
	got, err := src.content.ReadFileAt(ctx, n, p, off)
	if err != nil {
		return got, err
	}
	return got, eof
}

// noBytes returns what is wrong with a read for which there are no bytes.
func (in *inode) noBytes(size int, off int64) error {
	switch {
	case in.isDir():
		return syscall.EISDIR
	case in.format() != syscall.S_IFREG || off < 0:
		return syscall.EINVAL
	case size == 0:
		return nil
	}
	return io.EOF
}

// ReadHeldAt is ReadAt of bytes that are in memory, or in a file on disk that
// is open. It fills p from off and returns true if all of p is in the file and
// there; if not, the read has still to be done, and has not counted. It does
// not wait for the network, and hardly for the disk.
func (n Node) ReadHeldAt(p []byte, off int64) bool {
	in := n.inode()
	if in.format() != syscall.S_IFREG || len(p) == 0 || off < 0 || int64(len(p)) > in.size-off {
		return false
	}
	content := n.t.sources[in.layer].content
	return content != nil && content.ReadHeldAt(n, p, off)
}

// ReadStreamAt reads len(p) bytes, which the regular file n has, from byte off
// out of the stream of its layer. It is what a Content reads by.
func (n Node) ReadStreamAt(ctx context.Context, s Stream, p []byte, off int64) (int, error) {
	in := n.inode()
	layer := n.t.sources[in.layer].name
	if x := n.t.extras[in.extra].sparse; x != 0 {
		return readSparse(ctx, s, layer, n.t.sparse[x-1], p, off)
	}
	return readStream(ctx, s, layer, p, in.off+off, in.off+in.size)
}

// readStream fills p from a layer, of a file whose content ends at outEnd: a
// stream that ends early is an error.
func readStream(ctx context.Context, s Stream, layer string, p []byte, out, outEnd int64) (int, error) {
	n, err := s.ReadFileAt(ctx, p, out, outEnd)
	if n == len(p) {
		return n, nil
	}
	// An index that points past the end of its layer is wrong; an EOF from
	// here would look like the end of the file.
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("layer %s: %w", layer, err)
}

// readSparse fills p from off of a file that holds extents and zeros.
func readSparse(ctx context.Context, s Stream, layer string, extents []extent, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err // zeros come without end
	}
	clear(p)
	end := off + int64(len(p))
	i := sort.Search(len(extents), func(i int) bool { return extents[i].off+extents[i].size > off })
	for ; i < len(extents) && extents[i].off < end; i++ {
		x, last := extents[i], extents[len(extents)-1] // in the layer too
		from, to := max(x.off, off), min(x.off+x.size, end)
		n, err := readStream(ctx, s, layer, p[from-off:to-off], x.out+from-x.off, last.out+last.size)
		if err != nil {
			return int(from-off) + n, err
		}
	}
	return len(p), nil
}
