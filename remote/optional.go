package remote

import (
	"context"
	"io"
)

// The interfaces here are what a Blob, or a Source, may offer besides. A reader of blobs looks
// for them in the Blob that a Source gave, and does without those it lacks.

// A LocalBlob is a Blob that may lie on a local disk.
type LocalBlob interface {
	Blob
	// Local reports whether the content lies on a local disk, so that
	// reading it again costs no more than reading a copy of it.
	Local() bool
}

// IsLocal reports whether b lies on a local disk: then a copy of it in the
// cache would be of no use.
func IsLocal(b Blob) bool {
	l, ok := b.(LocalBlob)
	return ok && l.Local()
}

// An ElsewhereBlob is a Blob that several places may have, for example a
// registry and its mirrors.
type ElsewhereBlob interface {
	Blob
	// ReadElsewhere is ReadAt for a range of which ReadAt gave wrong bytes:
	// it asks another place than the one that ReadAt asks first, and no cache
	// on the way, as far as there is a choice. Without one it may do what
	// ReadAt does.
	ReadElsewhere(ctx context.Context, p []byte, off int64) (int, error)
}

// A ProgressBlob is a Blob that says how far a read has come.
type ProgressBlob interface {
	Blob
	// ReadAtProgress is ReadAt, and calls arrived with the count of bytes at
	// the beginning of p that are there and will not be written again. The
	// count grows from call to call. Calls come one at a time and end before
	// ReadAtProgress returns; arrived returns soon.
	ReadAtProgress(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error)
}

// A WholeBlob is a Blob that a place may send whole when a range of it is
// asked for. A reader of ranges alone would then get it from its beginning for
// each of them.
type WholeBlob interface {
	Blob
	// ReadRange is ReadAtProgress where ranges are served; arrived may be nil.
	// If the server sends all of the blob instead of the range, it soon returns
	// an error that wraps ErrWhole, with the bytes that came before that. ReadWhole, if it
	// is called soon, goes on with that answer.
	ReadRange(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error)
	// ReadWhole writes the blob from byte off to its end to w, in order and as
	// it comes. That takes one request, unless it breaks off: then it asks for
	// the rest as ReadAt would. The error is that of w, as it is, or one that
	// ReadAt may return.
	ReadWhole(ctx context.Context, w io.Writer, off int64) error
	// SentWhole reports whether a range was asked for, and all of the blob was
	// sent instead.
	SentWhole() bool
}

// Counted is what a Source or a Blob is that comes over a network.
type Counted interface {
	// TakeReceived returns how many bytes of answers have come for it since
	// TakeReceived was called last: also of those that were wrong, broke off, or
	// had more than was asked for. ok is false if that is not known. All that read
	// it take from one count, so that nothing is counted twice.
	TakeReceived() (n int64, ok bool)
}

// Received returns what TakeReceived returns for x, a Source or a Blob, or else the
// number of bytes that were read of it.
func Received(x any, read int64) int64 {
	if c, ok := x.(Counted); ok {
		if n, ok := c.TakeReceived(); ok {
			return n
		}
	}
	return read
}

// A SizedBlob is a Blob whose size is only what an image's manifest states of
// content elsewhere.
type SizedBlob interface {
	Blob
	// WithSize returns the same content, with a size that may be the right one.
	WithSize(size int64) Blob
	// SaidSize returns the size that a server says the content has, if that is
	// another one than Size. It may ask for it if Size is 0, as nothing would be
	// read of such a blob. What it returns is a stranger's word, too.
	SaidSize(ctx context.Context) (size int64, ok bool)
}
