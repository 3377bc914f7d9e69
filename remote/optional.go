package remote

import "context"

// What a Blob may offer besides. Who reads blobs looks for these interfaces
// in the Blob that a Source gave, and does without them.

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

// A SpooledBlob is a Blob of which a place may send all when a range is asked
// for. What was sent is then kept on this machine for later reads.
type SpooledBlob interface {
	Blob
	// Spooled returns what is kept so, or on its way, or nil. It is the same
	// value as long as it is the same copy.
	Spooled() Spool
}

// A Spool is the copy of a blob that a SpooledBlob keeps. It is a Blob that
// asks nobody: ReadAt fails where the bytes are not there. Spools can be
// compared.
type Spool interface {
	Blob
	// Wait waits until all of the blob is there and has its digest. It fails
	// if the copy is not being made any more, and if ctx ends.
	Wait(ctx context.Context) error
	// Release removes the copy, for who has the content by now. Reads under
	// way are not disturbed; later ones of the SpooledBlob ask its place.
	Release()
}
