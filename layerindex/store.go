package layerindex

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// ErrNoIndex: the store has no index of the layer, or none that can be used.
var ErrNoIndex = errors.New("no layer index")

// A Store keeps index files in a directory, one a layer, under the layer's
// digest. Several processes may use the same directory: a file appears whole
// or not at all.
type Store struct {
	dir string
}

// OpenStore returns the store in a directory, which it makes if need be.
func OpenStore(dir string) (*Store, error) {
	dir = filepath.Join(dir, digest.SHA256.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Store{dir: dir}, nil
}

func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q is not a sha256 digest", d)
	}
	return filepath.Join(s.dir, d.Encoded()), nil
}

// Load returns the index of a layer. It is ErrNoIndex, wrapped, if there is
// none; one that is damaged, or by another version of imgfs, counts as none
// and the error says why. An index whose diff_id is not the layer's is
// ErrDiffID. The caller closes the index.
func (s *Store) Load(l Layer) (*Index, error) {
	path, err := s.path(l.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w of %s", ErrNoIndex, l.Digest)
	}
	if err != nil {
		return nil, err
	}
	x, err := readFile(f, l)
	if err != nil {
		f.Close()
		return nil, err
	}
	return x, nil
}

// readFile reads an index from its file and compares it with the layer.
func readFile(f *os.File, l Layer) (*Index, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x, err := ReadIndex(f, st.Size())
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrNoIndex, f.Name(), err)
	case x.Digest() != l.Digest || x.BlobSize() != l.Size:
		return nil, fmt.Errorf("%w: %s is of another layer", ErrNoIndex, f.Name())
	case x.DiffID() != l.DiffID:
		return nil, fmt.Errorf("%w: its digest is %s, not %s", ErrDiffID, x.DiffID(), l.DiffID)
	}
	x.file = f
	return x, nil
}

// Save stores an index, in place of an older one of the same layer.
func (s *Store) Save(x *Index) error {
	path, err := s.path(x.Digest())
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := x.WriteTo(tmp); err != nil {
		tmp.Close()
		return err
	}
	// Without this a crash of the machine can leave a name with no content.
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Remove drops the index of a layer, if there is one.
func (s *Store) Remove(d digest.Digest) error {
	path, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
