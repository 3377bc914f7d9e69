package containerdstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/internal/localblob"
	"github.com/imgfs/imgfs/remote/printable"
)

// A blobFile is an open file and the size that it had then.
type blobFile struct {
	*os.File
	size int64
}

// Size implements localblob.Content.
func (f *blobFile) Size() int64 { return f.size }

// Opened returns the file, for localblob.
func (f *blobFile) Opened() *os.File { return f.File }

// openBlob opens the blob of a digest, once. It stays readable when containerd removes
// it.
func (s *Source) openBlob(d digest.Digest) (localblob.Content, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil {
		return nil, fmt.Errorf("%w: %w", remote.ErrUnavailable, fs.ErrClosed)
	}
	if f := s.opened[d]; f != nil {
		return f, nil
	}
	name, err := blobName(d)
	if err != nil {
		return nil, err
	}
	f, err := s.blobs.Open(name)
	if err != nil {
		return nil, s.unread(err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	s.opened[d] = &blobFile{f, info.Size()}
	return s.opened[d], nil
}

// size returns how large the blob of a digest is, and leaves nothing open.
func (s *Source) size(d digest.Digest) (int64, error) {
	name, err := blobName(d)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	f := s.opened[d]
	s.mu.Unlock()
	if f != nil {
		return f.size, nil
	}
	st, err := s.blobs.Stat(name)
	if err != nil {
		return 0, s.unread(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Errorf("%w: it is no regular file", remote.ErrUnsupported)
	}
	return st.Size, nil
}

// blobName returns the name of the file of a digest, which becomes part of it only if it
// is valid.
func blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", remote.ErrReference, err)
	}
	return d.Algorithm().String() + "/" + d.Encoded(), nil
}

// unread says what is the matter with a blob that cannot be opened.
func (s *Source) unread(err error) error {
	var refused *beneath.RefusedError
	if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &refused) {
		return s.unopened(err)
	}
	command := "ctr -n " + printable.Word(s.place.namespace) + " content fetch " + printable.Word(s.name)
	if os.Geteuid() != 0 {
		command = "sudo " + command
	}
	return &remote.StoreError{
		Err:     fmt.Errorf("%w: containerd has discarded it, or not fetched it", remote.ErrNotFound),
		Command: command + " brings it from the registry, and " + printable.Word("docker://"+s.name) + " reads it there",
	}
}
