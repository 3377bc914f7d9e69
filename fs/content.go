package fs

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Content is where the bytes of the regular files of one layer come from.
// Implementations are safe for concurrent use. All methods are called with
// regular files of that layer alone, and with bytes that the file has.
//
// What does more than read, such as counting, is a Content that embeds the
// Content that it stands before.
type Content interface {
	// ReadFileAt reads len(p) bytes of a file from byte off, like
	// io.ReaderAt. If it returns fewer, the error is not nil. If ctx ends
	// first the error wraps ctx.Err().
	ReadFileAt(ctx context.Context, n Node, p []byte, off int64) (int, error)
	// ReadHeldAt is ReadFileAt of bytes that are in memory. It reports
	// whether it filled p; if not, the read has still to be done. It does not
	// wait for the network, and hardly for the disk, and allocates nothing.
	ReadHeldAt(n Node, p []byte, off int64) bool
	// FileDigest returns the SHA-256 of a file, if that is known.
	FileDigest(n Node) (d digest.Digest, ok bool, err error)
}

// A Stream is the uncompressed stream of one layer, such as a reader.Reader of
// layerindex. It is safe for concurrent use.
type Stream interface {
	// ReadFileAt reads len(p) bytes from byte off of the stream, like
	// io.ReaderAt, of a file whose content ends at byte end of it.
	ReadFileAt(ctx context.Context, p []byte, off, end int64) (int, error)
}

// StreamContent returns the content of a layer that has nothing but a stream.
func StreamContent(s Stream) Content { return streamContent{s} }

type streamContent struct{ stream Stream }

func (c streamContent) ReadFileAt(ctx context.Context, n Node, p []byte, off int64) (int, error) {
	return n.ReadStreamAt(ctx, c.stream, p, off)
}

func (streamContent) ReadHeldAt(Node, []byte, int64) bool { return false }

func (streamContent) FileDigest(Node) (digest.Digest, bool, error) { return "", false, nil }
