package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"syscall"
)

// readAt is ReadAt, not counted.
func (n Node) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	in := n.inode()
	switch {
	case in.isDir():
		return 0, syscall.EISDIR
	case in.format() != syscall.S_IFREG || off < 0:
		return 0, syscall.EINVAL
	case len(p) == 0:
		return 0, nil
	case off >= in.size:
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > in.size-off {
		p, eof = p[:in.size-off], io.EOF
	}
	src := &n.t.sources[in.layer]
	got, err := 0, error(nil)
	if x := n.t.extras[in.extra].sparse; x != 0 {
		got, err = readSparse(ctx, src, n.t.sparse[x-1], p, off)
	} else {
		got, err = src.readAt(ctx, p, in.off+off, in.off+in.size)
	}
	if err != nil {
		return got, err
	}
	return got, eof
}

// readAt fills p from the layer, of a file whose content ends at outEnd:
// whatever ends early is an error.
func (s *source) readAt(ctx context.Context, p []byte, out, outEnd int64) (n int, err error) {
	switch content := s.content.(type) {
	case nil:
		return 0, fmt.Errorf("layer %s: no content", s.name)
	case FileContent:
		n, err = content.ReadFileAt(ctx, p, out, outEnd)
	default:
		n, err = content.ReadAt(ctx, p, out)
	}
	if n == len(p) {
		return n, nil
	}
	// An index that points past the end of its layer is wrong; an EOF from
	// here would look like the end of the file.
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("layer %s: %w", s.name, err)
}

// readSparse fills p from off of a file that holds extents and zeros.
func readSparse(ctx context.Context, src *source, extents []extent, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err // zeros come without end
	}
	clear(p)
	end := off + int64(len(p))
	i := sort.Search(len(extents), func(i int) bool { return extents[i].off+extents[i].size > off })
	for ; i < len(extents) && extents[i].off < end; i++ {
		x, last := extents[i], extents[len(extents)-1] // in the layer too
		from, to := max(x.off, off), min(x.off+x.size, end)
		n, err := src.readAt(ctx, p[from-off:to-off], x.out+from-x.off, last.out+last.size)
		if err != nil {
			return int(from-off) + n, err
		}
	}
	return len(p), nil
}
