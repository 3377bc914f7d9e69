package remote

import (
	"errors"
	"fmt"
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

// A StoreError says that an image in the store of another program cannot be read where
// it is.
type StoreError struct {
	Err error
	// Command is what can be typed into a shell instead, "" if nothing is known.
	Command string
}

func (e *StoreError) Error() string { return e.Err.Error() }

// Unwrap returns what is the matter.
func (e *StoreError) Unwrap() error { return e.Err }

// A KindError says that a file or directory is not what its transport reads, and
// what it is instead. It is ErrUnsupported.
type KindError struct {
	// Wanted is what the transport reads, and Found what is there, in words.
	Wanted, Found string
	// Instead is how the image is named that is there; nil if imgfs reads none.
	Instead *Location
	// Command is what makes something of it that imgfs reads, to be typed into a
	// shell; "" if there is no such command.
	Command string
}

func (e *KindError) Error() string {
	return fmt.Sprintf("%v: it is %s, not %s", ErrUnsupported, e.Found, e.Wanted)
}

// Unwrap returns ErrUnsupported.
func (e *KindError) Unwrap() error { return ErrUnsupported }
