package snapshotter

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
)

// ErrUnsupported says that layers of an image are not of a kind that can be mounted.
var ErrUnsupported = errors.New("layers of this kind cannot be mounted")

// An Image names an image in a registry, as a client of containerd did.
type Image struct {
	Ref    string        `json:"ref"`      // such as docker.io/library/node:22
	Digest digest.Digest `json:"manifest"` // of the manifest for one platform
}

// Trees reaches images and mounts their trees. Methods are called from several goroutines,
// but of those that have a directory one at a time for each directory. They return soon after
// their context has ended. What strangers wrote is made printable in the text of errors.
type Trees interface {
	// DiffIDs returns the diff ids of an image's layers, the base first, as its config has
	// them. It asks for nothing but manifest and config, and checks these against their
	// digests. An error that wraps ErrUnsupported says that a layer cannot be indexed.
	DiffIDs(ctx context.Context, img Image) ([]digest.Digest, error)
	// Index gets ready what mounting the image needs, and finds out whether its layers make a
	// tree. Each layer is checked against its diff id, and nothing else that comes with the
	// image is believed of it: a chain is that of all images with these diff ids. It may take
	// as long as fetching the image.
	Index(ctx context.Context, img Image) error
	// Mount mounts the first n layers of an image read-only on dir, an empty directory. When
	// it returns without an error the tree is there, and outlives this process.
	Mount(ctx context.Context, img Image, n int, dir string) error
	// Unmount ends what is mounted on dir, one or more mounts, dead ones too. What is in use
	// is gone from dir at once and ends with its last user. It is no error if nothing is
	// mounted.
	Unmount(ctx context.Context, dir string) error
	// State says what is mounted on dir. It does not wait for a tree that does not answer.
	State(ctx context.Context, dir string) (State, error)
}

// A State is what is mounted on a directory.
type State int

// The states.
const (
	Absent State = iota // nothing
	Live                // a tree that answers
	Dead                // a tree that nobody serves any more
)

// maxRef is how many bytes the name of an image may have: labels of containerd have 4,096.
const maxRef = 4096

// valid reports whether an image can be asked for.
func (i Image) valid() bool {
	return i.Ref != "" && len(i.Ref) <= maxRef && i.Digest.Validate() == nil
}
