// Package files keeps the contents of regular files, whole, in a cache directory, for
// the kernel to read by itself. A kept file is a copy of what can be decoded again:
// it takes no room from what is in use.
package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/seal"
)

// docs/cache-format.md, "Contents".
const (
	fileMode = 0o400

	// pieceSize is how much is read of a kept file at once.
	pieceSize = 128 << 10
	// sealBlock is the length of the pieces of a kept file that are sealed: what
	// a page fault asks for.
	sealBlock = 4 << 10
	// touchAfter is how old the time of modification gets before a use is
	// noted again.
	touchAfter = 10 * time.Minute
)

// A Kept is an open file of the cache directory that holds the content of
// a regular file, whole and checked by this process. While it is open it is not
// removed to make room. It is safe for concurrent use.
type Kept struct {
	c      *Cache
	digest digest.Digest
	f      *os.File
	size   int64
	known  *checkedFile // nil before it was checked
}

// File returns the open file, which cannot be written, for the kernel to read.
// Nothing looks at what it reads then: see Unchanged. It is closed by Close.
func (x *Kept) File() *os.File { return x.f }

// ReadAt reads len(p) bytes from off, like io.ReaderAt, which are still those
// that were checked. If the file has others by now, or cannot be read, it is
// removed, and the error wraps remote.ErrDigest: from then on the kept file is not
// there.
func (x *Kept) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("content %s: read at negative offset %d: %w", x.digest, off, fs.ErrInvalid)
	}
	if off >= x.size {
		return 0, io.EOF
	}
	var atEnd error
	if rest := x.size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	if x.known.sealed.Read(x.f, p, off) {
		return len(p), atEnd
	}
	if _, err := x.f.Stat(); errors.Is(err, os.ErrClosed) {
		return 0, fileError(x.digest, err)
	}
	if err := x.c.drop(x); err != nil {
		x.c.dir.DiskFailed(err)
	}
	return 0, fmt.Errorf("content %s: it has changed on disk: %w", x.digest, remote.ErrDigest)
}

// Unchanged reports whether nobody has written to the file, or removed it, since
// it was checked, as far as its time of change says. If not, the next Open
// checks it again.
func (x *Kept) Unchanged() bool {
	id, _, err := identify(x.f)
	if err == nil && x.c.known.unchanged(x.known, id) {
		return true
	}
	x.c.known.forget(x.digest)
	return false
}

// Size returns the kept file's length in bytes.
func (x *Kept) Size() int64 { return x.size }

// Close closes the file. What the kernel has been given of it stays readable,
// and is not removed to make room either: its lock is that of the open file.
func (x *Kept) Close() error { return x.f.Close() }

// A Cache is the kept files of a cache directory. It is safe for concurrent
// use.
type Cache struct {
	dir   *directory.Dir
	known knowledge
	count struct{ stored, bytes atomic.Int64 }
}

// New returns the kept files of a directory.
func New(d *directory.Dir) *Cache {
	c := &Cache{dir: d}
	c.known.init(d)
	return c
}

// knowledge is what a Cache knows of the kept files in its directory.
type knowledge struct {
	d *directory.Dir
	// storing and checking have the digests that somebody is at. Who has
	// both takes storing first.
	storing, checking keyLocks
	share             share

	mu sync.Mutex
	// checked are the files that this process has compared with their
	// digests, or has written.
	checked map[digest.Digest]*checkedFile
	key     *seal.Key
}

func (k *knowledge) init(d *directory.Dir) {
	k.d = d
	k.checked = map[digest.Digest]*checkedFile{}
	k.key = seal.NewKey()
}

// enter begins an operation with a kept file. It is ended by
// c.flying.Done, which Close waits for.
func (c *Cache) enter(d digest.Digest) error {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("content %q: not a SHA-256: %w", d, fs.ErrInvalid)
	}
	if !c.dir.Begin() {
		return fileError(d, fs.ErrClosed)
	}
	return nil
}

func fileError(d digest.Digest, err error) error { return fmt.Errorf("content %s: %w", d, err) }

// Has reports whether the directory seems to have the kept file with
// SHA-256 d and size bytes. It is a hint, for one stat(2).
func (c *Cache) Has(d digest.Digest, size int64) bool {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return false
	}
	st, err := c.dir.Files().Stat(c.dir.Name(directory.Kept, d))
	return err == nil && directory.IsRegular(st) && st.Size == size
}

// Open opens the kept file with SHA-256 d. The first time in the life of
// a Cache it reads all of it and checks it; of those that open it at the same
// time one does, and the others wait. A kept file that is not there, or is not
// of size bytes, is fs.ErrNotExist, wrapped; one that is wrong is removed, and
// is not there either. Other errors are ctx.Err(), fs.ErrClosed after Close,
// fs.ErrInvalid if d is no SHA-256, and those of the disk.
func (c *Cache) Open(ctx context.Context, d digest.Digest, size int64) (*Kept, error) {
	if err := c.enter(d); err != nil {
		return nil, err
	}
	defer c.dir.End()
	return c.open(ctx, d, size)
}

// OpenChecked is Open for those who cannot wait for the disk: it
// reads nothing. A kept file that this Cache has neither checked nor stored is
// fs.ErrNotExist, wrapped, whether or not it is there.
func (c *Cache) OpenChecked(d digest.Digest, size int64) (*Kept, error) {
	if err := c.enter(d); err != nil {
		return nil, err
	}
	defer c.dir.End()
	x, id, err := c.lock(d)
	if err != nil {
		return nil, fileError(d, err)
	}
	if x.known = c.known.knows(d, id); x.known == nil {
		x.Close()
		return nil, fileError(d, fs.ErrNotExist)
	}
	return c.use(x, size)
}

func (c *Cache) open(ctx context.Context, d digest.Digest, size int64) (*Kept, error) {
	// Without the lock on the digest first: most kept files are known.
	x, id, err := c.lock(d)
	if err == nil {
		x.known = c.known.knows(d, id)
	}
	if err == nil && x.known == nil {
		x.Close()
		var unlock func()
		if unlock, err = c.known.lock(ctx, &c.known.checking, d); err == nil {
			x, err = c.openChecked(ctx, d)
			unlock()
		}
	}
	if err != nil {
		return nil, fileError(d, err)
	}
	return c.use(x, size)
}

// openChecked opens a kept file and checks it, unless it is known by now.
func (c *Cache) openChecked(ctx context.Context, d digest.Digest) (*Kept, error) {
	x, id, err := c.lock(d)
	if err != nil {
		return nil, err
	}
	if x.known = c.known.knows(d, id); x.known != nil {
		return x, nil
	}
	sealed := seal.NewAppender(c.known.key, sealBlock)
	got, err := c.known.digest(ctx, x, sealed)
	if err == nil && got == d {
		// What it was before it was read: who writes meanwhile is noticed.
		x.known = c.known.know(d, id, sealed.Table())
		return x, nil
	}
	if err := c.dir.Interrupted(ctx); err != nil {
		x.Close()
		return nil, err
	}
	// What a disk cannot read it has not got.
	err = c.drop(x)
	x.Close()
	if err == nil {
		err = fs.ErrNotExist
	}
	return nil, err
}

// drop removes a kept file that is wrong, unless there is another file in
// its place.
func (c *Cache) drop(x *Kept) error {
	name := c.dir.Name(directory.Kept, x.digest)
	if !c.dir.Files().Is(x.f, name) {
		return nil
	}
	c.dir.CountBad()
	c.known.forget(x.digest)
	if c.dir.ReadOnly() != nil {
		return nil
	}
	if err := c.dir.Files().Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// use notes that a kept file is being used, and closes it if it is not
// what was asked for.
func (c *Cache) use(x *Kept, size int64) (*Kept, error) {
	if x.size != size {
		x.Close()
		return nil, fmt.Errorf("content %s: it has %d bytes, and not %d: %w", x.digest, x.size, size, fs.ErrNotExist)
	}
	if st, err := x.f.Stat(); err == nil && c.dir.ReadOnly() == nil {
		now := time.Now()
		if age := now.Sub(st.ModTime()); age > touchAfter || age < -directory.FutureTime {
			c.touch(x, now)
		}
	}
	return x, nil
}

// lock opens a kept file with its lock. Its bytes are not to be believed
// but if its identity is known. It is fs.ErrNotExist if there is none, or it
// is about to be removed.
func (c *Cache) lock(d digest.Digest) (*Kept, seen, error) {
	name := c.dir.Name(directory.Kept, d)
	// Each turn but the last means that another process replaced the file at
	// that moment.
	for range 100 {
		f, err := c.dir.Files().Open(name)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				c.known.forget(d)
			}
			return nil, seen{}, err
		}
		err = directory.Flock(f, unix.LOCK_SH|unix.LOCK_NB)
		none := directory.NoLocks(err)
		if (err == nil || none) && c.dir.Files().Is(f, name) {
			id, st, err := identify(f)
			if err != nil {
				f.Close()
				return nil, seen{}, err
			}
			return &Kept{c: c, digest: d, f: f, size: st.Size()}, id, nil
		}
		f.Close()
		if err != nil && !none && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, seen{}, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		if err != nil && !none {
			break
		}
	}
	return nil, seen{}, fs.ErrNotExist
}

// digest reads a kept file through its descriptor and returns what it is, with its
// bytes in sealed. The error is that of the disk, ctx.Err() or fs.ErrClosed.
func (k *knowledge) digest(ctx context.Context, x *Kept, sealed *seal.Appender) (digest.Digest, error) {
	h := sha256.New()
	buf := make([]byte, 1+min(pieceSize-1, x.size))
	for off := int64(0); ; {
		if err := k.d.Interrupted(ctx); err != nil {
			return "", err
		}
		n, err := x.f.ReadAt(buf, off)
		h.Write(buf[:n])
		sealed.Append(buf[:n])
		off += int64(n)
		if err == io.EOF {
			return digest.NewDigest(digest.SHA256, h), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// Probe returns an empty file without a name where kept files lie, to find
// out what the kernel does with such files. It cannot be written.
func (c *Cache) Probe() (*os.File, error) {
	if c.dir.IsClosed() {
		return nil, fmt.Errorf("cache directory %s: %w", c.dir.Path(), fs.ErrClosed)
	}
	w, err := c.dir.NewFile()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	defer w.Discard()
	return w.Reopen()
}

// Counts are the counters of a Cache since it was made: see Stats of
// package cache.
type Counts struct{ Stored, Bytes int64 }

// Counts returns the counters as they are now.
func (c *Cache) Counts() Counts {
	return Counts{c.count.stored.Load(), c.count.bytes.Load()}
}
