// Package localblob is the part that the local sources share: blobs whose
// content lies in a file or in part of one, as remote.Blob.
//
// It opens a file at the first read and compares its size with the blob's then:
// that is the file's when the blob was made. The digest is checked only in Fetch,
// which does not ask for the size: a reader of ranges checks them itself, as
// remote.Blob says.
package localblob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// An Opener finds the content of a digest. The error is remote.ErrNotFound
// if there is none, wrapped and without the digest in its text. It may be
// called for each read, at the same time, and should remember.
type Opener func(d digest.Digest) (content Content, err error)

// Content is the whole of one blob, as io.SectionReader has it.
type Content interface {
	io.ReaderAt
	Size() int64
}

// New returns the blob that desc describes. Its digest must be valid, and its size
// the file's; source is what errors begin with.
func New(source string, desc ocispec.Descriptor, open Opener) (*Blob, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w: digest %q: %w", source, remote.ErrUnsupported, desc.Digest, err)
	}
	return &Blob{source: source, digest: desc.Digest, size: desc.Size, open: open}, nil
}

// NewSized is New for a blob whose file need not be there: size finds how large it is. If
// there is none the size is the one that desc states, or 0 if nothing can have that.
func NewSized(source string, desc ocispec.Descriptor, open Opener, size func(digest.Digest) (int64, error)) (*Blob, error) {
	if n, err := size(desc.Digest); err == nil {
		desc.Size = n
	} else if desc.Size < 0 || desc.Size > maxSize {
		desc.Size = 0 // nobody can tell
	}
	return New(source, desc, open)
}

// maxSize is the largest size of a blob that is not there.
const maxSize = 1 << 30

// A Blob is a remote.Blob that a local file holds. It is safe for concurrent
// use.
type Blob struct {
	source string
	digest digest.Digest
	size   int64
	open   Opener
}

var (
	_ remote.LocalBlob = (*Blob)(nil)
	_ FileBlob         = (*Blob)(nil)
)

// A FileBlob is a remote.Blob whose content lies in a file that its source has open.
type FileBlob interface {
	remote.Blob
	// File returns the file, and where in it the content begins. It is the source's,
	// and stays open as long as that; its offset means nothing. The error says why the
	// content is in no such file, or not yet.
	File() (f *os.File, off int64, err error)
}

// Digest implements remote.Blob.
func (b *Blob) Digest() digest.Digest { return b.digest }

// Size implements remote.Blob.
func (b *Blob) Size() int64 { return b.size }

// Local implements remote.LocalBlob.
func (b *Blob) Local() bool { return true }

// ReadAt implements remote.Blob. Content that has another size than the blob
// is remote.ErrDigest.
func (b *Blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	content, err := b.content(ctx)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, b.fail(fmt.Errorf("negative offset %d", off))
	}
	if off >= b.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), b.size-off)]
	n, err := content.ReadAt(want, off)
	switch {
	case n == len(p):
		return n, nil
	case n == len(want):
		return n, io.EOF
	case err == nil, errors.Is(err, io.EOF):
		return n, b.fail(fmt.Errorf("%w: the file has become shorter: it ends at byte %d of %d", remote.ErrDigest, off+int64(n), b.size))
	}
	return n, b.fail(fmt.Errorf("%w: %w", remote.ErrUnavailable, err))
}

// content opens the blob and compares its size.
func (b *Blob) content(ctx context.Context) (Content, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content, err := b.open(b.digest)
	if err != nil {
		return nil, b.fail(err)
	}
	if got := content.Size(); got != b.size {
		return nil, b.fail(fmt.Errorf("%w: the file has %d bytes, and had %d", remote.ErrDigest, got, b.size))
	}
	return content, nil
}

// File implements FileBlob.
func (b *Blob) File() (f *os.File, off int64, err error) {
	content, err := b.content(context.Background())
	if err != nil {
		return nil, 0, err
	}
	in := io.ReaderAt(content)
	if section, ok := content.(*io.SectionReader); ok {
		in, off, _ = section.Outer()
	}
	switch in := in.(type) {
	case *os.File:
		return in, off, nil
	case interface{ File() *os.File }: // a temporary file
		return in.File(), off, nil
	case interface{ Opened() *os.File }:
		return in.Opened(), off, nil
	}
	return nil, 0, b.fail(fmt.Errorf("%w: it is not one part of a file", remote.ErrUnsupported))
}

// maxFetch is the largest document that Fetch reads.
const maxFetch = 16 << 20

// Fetch reads all of the content and checks the digest, which says all: there
// are layouts whose descriptors have a wrong size.
func (b *Blob) Fetch(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content, err := b.open(b.digest)
	if err != nil {
		return nil, b.fail(err)
	}
	size := content.Size()
	if size > maxFetch {
		return nil, b.fail(fmt.Errorf("%w: %d bytes; imgfs reads up to %d", remote.ErrUnsupported, size, maxFetch))
	}
	p := make([]byte, size)
	if n, err := content.ReadAt(p, 0); n < len(p) {
		return nil, b.fail(fmt.Errorf("%w: %w", remote.ErrUnavailable, err))
	}
	if got := b.digest.Algorithm().FromBytes(p); got != b.digest {
		return nil, b.fail(fmt.Errorf("%w: the content has %s", remote.ErrDigest, got))
	}
	return p, nil
}

func (b *Blob) fail(err error) error {
	return fmt.Errorf("%s: blob %s: %w", b.source, b.digest, err)
}
