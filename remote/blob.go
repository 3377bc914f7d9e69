package remote

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Blob is immutable content of known digest and size.
//
// Implementations are safe for concurrent use. Unless they say otherwise they
// hand on what the source answered: a reader of ranges must check the bytes
// itself (see package cache), because no source verifies a range.
type Blob interface {
	// Digest returns the digest of the whole content.
	Digest() digest.Digest
	// Size returns the length of the content in bytes, as the image's
	// manifest states it; of content on this machine, what it has.
	Size() int64
	// ReadAt reads len(p) bytes from byte off of the content. Like
	// io.ReaderAt it returns a non-nil error when it returns fewer, io.EOF
	// at the end. It returns ctx.Err() soon after ctx ends, and else
	// ErrNotFound, ErrUnauthorized or ErrUnavailable, wrapped.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// A Source is one place that one image comes from: a repository of a
// registry with the reference asked for, an OCI layout, an archive.
//
// It hands out parts; Open puts them together. Implementations are safe for
// concurrent use.
type Source interface {
	// Name is what messages call the image, for example
	// "docker.io/library/fedora:latest" or "oci:/srv/layout:v1".
	Name() string
	// Repository is the name that inspect shows: registry and repository
	// without tag for a registry, "" elsewhere.
	Repository() string
	// Resolve finds the manifest or image index that the reference names. If
	// Fetch fails with ErrNotFound or ErrDigest for it, Resolve may give another
	// answer when it is called again.
	// The errors are ErrNotFound, ErrUnauthorized and ErrUnavailable,
	// wrapped.
	Resolve(ctx context.Context) (ocispec.Descriptor, error)
	// Fetch returns the content of a manifest, image index or config. It
	// has desc's digest; anything else is ErrDigest, wrapped. A size that is
	// not desc's is so too where content comes over a network, while a
	// local source may go by the digest alone, as containerd's and skopeo's
	// imports do.
	Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// Blob returns the content that desc describes. It asks the source for
	// nothing; a blob that does not exist is noticed at the first read.
	Blob(desc ocispec.Descriptor) (Blob, error)
}

// An unreadable is a blob that no source can give: reading it fails.
type unreadable struct {
	desc ocispec.Descriptor
	err  error
}

// Digest implements Blob.
func (u unreadable) Digest() digest.Digest { return u.desc.Digest }

// Size implements Blob.
func (u unreadable) Size() int64 { return u.desc.Size }

// ReadAt implements Blob.
func (u unreadable) ReadAt(context.Context, []byte, int64) (int, error) { return 0, u.err }
