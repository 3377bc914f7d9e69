package layerindex

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

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

const (
	// unfinished begins the names of files that are being written.
	unfinished = ".new-"
	// abandoned is how old such a file gets before it counts as left behind
	// by a process that was killed.
	abandoned = time.Hour
	// touchAfter is how old the time of a file's last use may get before it
	// is noted again.
	touchAfter = time.Hour
)

// OpenStore returns the store in a directory, which it makes if need be. That
// the disk is full, or may not be written, is left for Save to say.
func OpenStore(dir string) (*Store, error) {
	dir = filepath.Join(dir, digest.SHA256.String())
	err := os.MkdirAll(dir, 0o700)
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, full) {
			err = nil
		}
	}
	return &Store{dir: dir}, err
}

func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q is not a sha256 digest", d)
	}
	return filepath.Join(s.dir, d.Encoded()), nil
}

// Load returns the index of a layer. It is ErrNoIndex, wrapped, if there is
// none; one that is damaged, or by another version of imgfs, counts as none
// and the error, which wraps ErrIndex too, says why: the checksums of all its
// parts are compared first. An index whose diff_id is not the layer's is
// ErrDiffID. The caller closes the index.
//
// The time of the file's modification says, give or take an hour, when it was
// last loaded.
func (s *Store) Load(l Layer) (*Index, error) {
	x, f, err := s.open(l.Digest)
	if err != nil {
		return nil, err
	}
	if x.BlobSize() != l.Size {
		x.Close()
		return nil, fmt.Errorf("%w: %w: %s is of a blob of %d bytes, not %d", ErrNoIndex, ErrIndex, f.Name(), x.BlobSize(), l.Size)
	}
	if err := x.checkSums(); err != nil {
		x.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrNoIndex, f.Name(), err)
	}
	if x.DiffID() != l.DiffID {
		x.Close()
		return nil, fmt.Errorf("%w: its digest is %s, not %s", ErrDiffID, x.DiffID(), l.DiffID)
	}
	if st, err := f.Stat(); err == nil && time.Since(st.ModTime()) > touchAfter {
		// A directory that cannot be written can still be read.
		_ = os.Chtimes(f.Name(), time.Time{}, time.Now())
	}
	return x, nil
}

// Open is Load for a layer of which only the blob's digest is known. It does
// not count as a use.
func (s *Store) Open(d digest.Digest) (*Index, error) {
	x, _, err := s.open(d)
	return x, err
}

// open opens the index file of a layer and compares it with the digest.
func (s *Store) open(d digest.Digest) (*Index, *os.File, error) {
	path, err := s.path(d)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w of %s", ErrNoIndex, d)
	}
	if err != nil {
		return nil, nil, err
	}
	x, err := readFile(f)
	if err == nil && x.Digest() != d {
		err = fmt.Errorf("%w: %w: %s is of another layer", ErrNoIndex, ErrIndex, f.Name())
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return x, f, nil
}

// readFile reads an index from its file.
func readFile(f *os.File) (*Index, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x, err := ReadIndex(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoIndex, f.Name(), err)
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
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.sweep()
	tmp, err := os.CreateTemp(s.dir, unfinished+"*")
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

// sweep removes what killed processes have left.
func (s *Store) sweep() {
	left, err := filepath.Glob(filepath.Join(s.dir, unfinished+"*"))
	if err != nil {
		return // the pattern is right: the directory has an odd name
	}
	for _, name := range left {
		if st, err := os.Lstat(name); err == nil && time.Since(st.ModTime()) > abandoned {
			os.Remove(name)
		}
	}
}

// A Stored is an index file of a Store.
type Stored struct {
	Digest digest.Digest // of the layer's blob
	Size   int64         // of the file, in bytes
	Used   time.Time     // last, give or take an hour
}

// List returns the index files that the store has, in the order of their
// digests. It looks at none of them.
func (s *Store) List() ([]Stored, error) {
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []Stored
	for _, e := range names {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		st, statErr := e.Info()
		if d.Validate() != nil || statErr != nil || !st.Mode().IsRegular() {
			continue // not an index, or removed meanwhile
		}
		list = append(list, Stored{Digest: d, Size: st.Size(), Used: st.ModTime()})
	}
	return list, err
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
