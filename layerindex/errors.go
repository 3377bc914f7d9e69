package layerindex

import (
	"errors"
	"fmt"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// Errors of package build. They come wrapped.
var (
	// ErrDigest says that the blob does not have the digest or the size that
	// the manifest gives it.
	ErrDigest = errors.New("blob is not what the manifest says")
	// ErrDiffID says that the uncompressed layer has another digest than the
	// config gives it.
	ErrDiffID = errors.New("uncompressed layer is not what the config says")
	// ErrTooBig says that the uncompressed layer is bigger than allowed.
	ErrTooBig = errors.New("bigger than allowed")
	// ErrCompressed says that the compressed stream is damaged.
	ErrCompressed = codec.ErrFormat
)

// ErrIndex says that a stored index is damaged, or of a version that is not known. It
// comes wrapped. Building the index again is the remedy.
var ErrIndex = indexfile.ErrInvalid

// ErrLossy says that what others wrote down about a layer does not tell all that the
// layer has: names that are no UTF-8, names that come twice, the map of a sparse file. It
// comes wrapped. Reading the whole layer is the remedy.
var ErrLossy = errors.New("index cannot hold what the layer has")

// ErrMetadata says that the names, attributes and entries of an image take more memory
// than is allowed. It comes wrapped, with the entry that was too much.
var ErrMetadata = errors.New("too many names and attributes")

// ErrEntries says that the layers of an image have more than MaxEntries entries
// together. It comes wrapped.
var ErrEntries = errors.New("too many entries")

// ErrTar says that a layer is not a tar that can be shown in full. It comes wrapped in
// a *FormatError.
var ErrTar = errors.New("invalid tar")

// A FormatError says where a layer's tar is at fault. Err wraps ErrTar and,
// where the tar ends too early, io.ErrUnexpectedEOF.
type FormatError struct {
	Entry string // the name of the entry at fault as far as it is known; may be empty
	Off   int64  // of the header block or record at fault, or the end, in the uncompressed layer
	Err   error
}

// Error names the entry and the offset.
func (e *FormatError) Error() string {
	if e.Entry == "" {
		return fmt.Sprintf("at offset %d: %v", e.Off, e.Err)
	}
	return fmt.Sprintf("entry %q at offset %d: %v", e.Entry, e.Off, e.Err)
}

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }
