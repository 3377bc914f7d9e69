package layerindex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

// ErrNoIndex: the store has no index of the layer, or none that can be used.
var ErrNoIndex = errors.New("no layer index")

// A Store keeps index files in a directory, one a layer, under the layer's
// digest. Several processes may use the same directory: a file appears whole
// or not at all.
type Store struct {
	dir *beneath.Dir
}

const (
	// subdir is where the files lie in the directory.
	subdir = string(digest.SHA256)
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
// the disk is full, or may not be written, is left for Save to say. An index is
// believed because of where it lies: a directory that another user may write is
// refused.
func OpenStore(dir string) (*Store, error) {
	f, err := openStoreDir(dir)
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, full) {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	return NewStore(beneath.New(dir, f, &beneath.Options{Again: func() (*os.File, error) { return openStoreDir(dir) }})), nil
}

func openStoreDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil {
		err = beneath.Safe(&st)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return f, nil
}

// NewStore returns the store in a directory that is open, and which it does not
// close.
func NewStore(dir *beneath.Dir) *Store { return &Store{dir} }

// Close closes the directory of a store that OpenStore returned.
func (s *Store) Close() error { return s.dir.Close() }

// name returns the name of a layer's index in the directory.
func (s *Store) name(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q is not a sha256 digest", d)
	}
	return path.Join(subdir, d.Encoded()), nil
}

// Load returns the index of a layer. It is ErrNoIndex, wrapped, if there is
// none; one that is damaged, or by another version of imgfs, counts as none
// and the error, which wraps ErrIndex too, says why: the checksums of all its
// parts are compared first. An index whose diff_id is not the layer's is
// ErrDiffID. The caller closes the index.
//
// The time of the file's modification says, give or take an hour, when it was
// last loaded.
func (s *Store) Load(ctx context.Context, l Layer) (*Index, error) {
	x, f, err := s.open(l.Digest)
	if err != nil {
		return nil, err
	}
	if x.BlobSize() != l.Size {
		x.Close()
		return nil, fmt.Errorf("%w: %w: %s is of a blob of %d bytes, not %d", ErrNoIndex, ErrIndex, f.Name(), x.BlobSize(), l.Size)
	}
	if err := x.checkSums(ctx); err != nil {
		x.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrNoIndex, f.Name(), err)
	}
	if x.DiffID() != l.DiffID {
		x.Close()
		return nil, fmt.Errorf("%w: its digest is %s, not %s", ErrDiffID, x.DiffID(), l.DiffID)
	}
	if st, err := f.Stat(); err == nil && time.Since(st.ModTime()) > touchAfter {
		// A directory that cannot be written can still be read.
		_ = s.dir.Touch(path.Join(subdir, l.Digest.Encoded()), time.Now())
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
	name, err := s.name(d)
	if err != nil {
		return nil, nil, err
	}
	f, err := s.dir.Open(name)
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
func (s *Store) Save(ctx context.Context, x *Index) error {
	name, err := s.name(x.Digest())
	if err != nil {
		return err
	}
	s.sweep()
	f, tmp, err := s.dir.CreateTemp(subdir, unfinished)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, ctxReader{ctx, io.NewSectionReader(x.src, 0, x.size)})
	if err == nil {
		// Without this a crash of the machine can leave a name with no content.
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.dir.Rename(tmp, name)
	}
	if err != nil {
		_ = s.dir.Remove(tmp) // else a sweep finds it
	}
	return err
}

// sweep removes what killed processes have left.
func (s *Store) sweep() {
	_ = s.each(func(name string, st *unix.Stat_t) {
		digits, ok := strings.CutPrefix(name, unfinished)
		if ok && digits != "" && strings.Trim(digits, "0123456789") == "" && time.Since(time.Unix(st.Mtim.Unix())) > abandoned {
			_ = s.dir.Remove(path.Join(subdir, name))
		}
	})
}

// each calls do with each regular file. It is no error if there is no directory.
func (s *Store) each(do func(name string, st *unix.Stat_t)) error {
	err := s.dir.Walk(subdir, func(name string, st *unix.Stat_t) bool {
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			do(path.Base(name), st)
		}
		return name == subdir
	}, func(string, error) {})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
	var list []Stored
	err := s.each(func(name string, st *unix.Stat_t) {
		if d := digest.NewDigestFromEncoded(digest.SHA256, name); d.Validate() == nil {
			list = append(list, Stored{Digest: d, Size: st.Size, Used: time.Unix(st.Mtim.Unix())})
		}
	})
	return list, err
}

// Remove drops the index of a layer, if there is one.
func (s *Store) Remove(d digest.Digest) error {
	name, err := s.name(d)
	if err != nil {
		return err
	}
	if err := s.dir.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
