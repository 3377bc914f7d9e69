// Package indexes keeps the index files of layers in a directory of the cache,
// so that a layer is read whole only once. Package layerindex knows what is in
// such a file, and this package where it lies: sha256/<digest of the blob>, or, of an
// index that was made from what others wrote down about the layer, behind that - and a
// key.
//
// Several processes may use the same directory at the same time: a file appears
// whole or not at all. An index is believed because of where it lies, so the
// directory must be one that other users cannot write to; package beneath sees
// to that.
package indexes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// ErrNone says that the store has no index of a layer, or none that can be used.
// It comes wrapped; building the index is the remedy.
var ErrNone = errors.New("no layer index")

// A SizeError says that an index is of a blob with the layer's digest, and another
// size. It is ErrNone.
type SizeError struct {
	Size int64 // of the blob
	text string
}

func (e *SizeError) Error() string { return e.text }

// Is makes the error ErrNone, and layerindex.ErrIndex.
func (e *SizeError) Is(target error) bool { return target == ErrNone || target == layerindex.ErrIndex }

// A Store is a directory of index files, at most one for each layer that was made by
// reading all of it, and others by their keys. It is safe for concurrent use.
type Store struct {
	dir *beneath.Dir
}

const (
	// subdir is where the files lie in the directory.
	subdir = string(digest.SHA256)
	// touchAfter is how old the time of a file's last use may get before it
	// is noted again.
	touchAfter = time.Hour
)

// New returns the store in a directory, which the caller closes when the store
// is no longer used.
func New(dir *beneath.Dir) *Store { return &Store{dir} }

// keySize is how many hex digits a key has.
const keySize = 16

// Key returns the key of an index that was made from a document with that digest: its
// first 16 hex digits. The digest must be valid.
func Key(d digest.Digest) string { return d.Encoded()[:keySize] }

// validKey reports whether a key is one that Key may return.
func validKey(key string) bool {
	return len(key) == keySize && strings.Trim(key, "0123456789abcdef") == ""
}

// name returns the name of a layer's index in the directory. What is behind the digest
// is "" for the index that was made by reading all of the layer, and else - and a key.
func name(d digest.Digest, behind string) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q is not a sha256 digest", d)
	}
	if key, ok := strings.CutPrefix(behind, "-"); behind != "" && (!ok || !validKey(key)) {
		return "", fmt.Errorf("key %q of an index is not %d hex digits", key, keySize)
	}
	return path.Join(subdir, d.Encoded()+behind), nil
}

// Load returns the index of a layer, which the caller closes. All its parts are
// compared with their checksums first. The error wraps ErrNone if there is no
// index; if there is one that is damaged, or that another version of imgfs wrote,
// it wraps layerindex.ErrIndex too and says why; it is a *SizeError if the blob has
// another size than l. It wraps layerindex.ErrDiffID if the index has another diff_id
// than the layer.
//
// The file's modification time tells, to within an hour, when it was last loaded.
func (s *Store) Load(ctx context.Context, l layerindex.Layer) (*layerindex.Index, error) {
	return s.load(ctx, l, "")
}

// LoadKey is Load for the index that SaveKey has stored with that key.
func (s *Store) LoadKey(ctx context.Context, l layerindex.Layer, key string) (*layerindex.Index, error) {
	return s.load(ctx, l, "-"+key)
}

func (s *Store) load(ctx context.Context, l layerindex.Layer, behind string) (*layerindex.Index, error) {
	x, f, err := s.open(l.Digest, behind)
	if err != nil {
		return nil, err
	}
	if x.BlobSize() != l.Size {
		x.Close()
		return nil, &SizeError{x.BlobSize(), fmt.Sprintf("%v: %v: %s is of a blob of %d bytes, not %d", ErrNone, layerindex.ErrIndex, f.Name(), x.BlobSize(), l.Size)}
	}
	if err := x.CheckSums(ctx); err != nil {
		x.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrNone, f.Name(), err)
	}
	if x.DiffID() != l.DiffID {
		x.Close()
		return nil, fmt.Errorf("%w: its digest is %s, not %s", layerindex.ErrDiffID, x.DiffID(), l.DiffID)
	}
	if st, err := f.Stat(); err == nil && time.Since(st.ModTime()) > touchAfter {
		// A directory that cannot be written can still be read.
		_ = s.dir.Touch(path.Join(subdir, path.Base(f.Name())), time.Now())
	}
	return x, nil
}

// Open returns the index of a layer of which only the blob's digest is known; the
// caller closes it. Unlike Load it checks the header only, and does not count as
// a use.
func (s *Store) Open(d digest.Digest) (*layerindex.Index, error) {
	x, _, err := s.open(d, "")
	return x, err
}

// OpenKey is Open for the index that SaveKey has stored with that key.
func (s *Store) OpenKey(d digest.Digest, key string) (*layerindex.Index, error) {
	x, _, err := s.open(d, "-"+key)
	return x, err
}

// open opens the index file of a layer and compares it with the digest.
func (s *Store) open(d digest.Digest, behind string) (*layerindex.Index, *os.File, error) {
	name, err := name(d, behind)
	if err != nil {
		return nil, nil, err
	}
	f, err := s.dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w of %s", ErrNone, d)
	}
	if err != nil {
		return nil, nil, err
	}
	x, err := layerindex.OpenIndex(f)
	switch {
	case errors.Is(err, layerindex.ErrIndex):
		err = fmt.Errorf("%w: %s: %w", ErrNone, f.Name(), err)
	case err == nil && x.Digest() != d:
		err = fmt.Errorf("%w: %w: %s is of another layer", ErrNone, layerindex.ErrIndex, f.Name())
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return x, f, nil
}

// Save stores an index, in place of an older one of the same layer. If it fails,
// or ctx ends first, the older one stays.
func (s *Store) Save(ctx context.Context, x *layerindex.Index) error {
	return s.save(ctx, x, "")
}

// SaveKey is Save for an index that was made from what others wrote down about the
// layer. It takes the place of none but the one of the same layer and key.
func (s *Store) SaveKey(ctx context.Context, x *layerindex.Index, key string) error {
	return s.save(ctx, x, "-"+key)
}

func (s *Store) save(ctx context.Context, x *layerindex.Index, behind string) error {
	name, err := name(x.Digest(), behind)
	if err != nil {
		return err
	}
	s.sweep()
	f, tmp, err := s.dir.CreateTemp(subdir, directory.IndexTemp)
	if err != nil {
		return err
	}
	_, err = x.WriteTo(ctxWriter{ctx, f})
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

// A ctxWriter writes until its context ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// sweep removes the files that killed processes were writing.
func (s *Store) sweep() {
	_ = s.each(func(name string, st *unix.Stat_t) {
		if directory.IsAbandonedIndex(name, time.Unix(st.Mtim.Unix())) {
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

// A File describes an index file of a Store.
type File struct {
	Digest digest.Digest // of the layer's blob
	Key    string        // "" for the index that was made by reading all of the layer
	Size   int64         // of the file, in bytes
}

// List returns the index files of the store, ordered by digest and key. It opens none of
// them.
func (s *Store) List() ([]File, error) {
	var list []File
	err := s.each(func(name string, st *unix.Stat_t) {
		sum, key, keyed := strings.Cut(name, "-")
		d := digest.NewDigestFromEncoded(digest.SHA256, sum)
		if d.Validate() == nil && keyed == (key != "") && (!keyed || validKey(key)) {
			list = append(list, File{Digest: d, Key: key, Size: st.Size})
		}
	})
	return list, err
}

// Remove removes the index of a layer. It is no error if there is none.
func (s *Store) Remove(d digest.Digest) error { return s.remove(d, "") }

// RemoveKey is Remove for the index that SaveKey has stored with that key.
func (s *Store) RemoveKey(d digest.Digest, key string) error {
	return s.remove(d, "-"+key)
}

func (s *Store) remove(d digest.Digest, behind string) error {
	name, err := name(d, behind)
	if err != nil {
		return err
	}
	if err := s.dir.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
