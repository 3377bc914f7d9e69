package remote

import (
	"errors"
	"io/fs"
)

// Errors that callers decide by. They come wrapped, with the name of the
// image, manifest or blob at fault.
var (
	// ErrNotFound: the source answered, and has no such image or blob.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the source wants other credentials, or more rights. It
	// is fs.ErrPermission as well.
	ErrUnauthorized error = unauthorized{}
	// ErrUnavailable: the source could not be asked, or gave no usable
	// answer; asking again later may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrDigest: bytes do not have the digest or the size they should have.
	ErrDigest = errors.New("digest mismatch")
	// ErrPlatform: the image exists, but not for the platform asked for.
	ErrPlatform = errors.New("no such platform")
	// ErrUnsupported: the image is of a kind that imgfs does not mount.
	ErrUnsupported = errors.New("unsupported image")
	// ErrTooBig: an archive, or a layer, is bigger than the caller allows.
	ErrTooBig = errors.New("too big")
	// ErrWhole: a place sends all of a blob instead of the range asked for.
	ErrWhole = errors.New("sent whole")
	// ErrReference: the reference is not well formed.
	ErrReference = errors.New("invalid reference")
)

type unauthorized struct{}

func (unauthorized) Error() string { return "unauthorized" }

func (unauthorized) Is(target error) bool { return target == fs.ErrPermission }
