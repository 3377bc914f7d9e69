package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/beneath"
)

const (
	// RetryWrites is how long the disk is left alone after it refused a
	// write.
	RetryWrites = 30 * time.Second
	// KeptIdle is how long a chunk, or a kept file, was not used that goes to
	// make room for a kept file. A kept file is a copy: it must not cost what
	// others are about to read, and kept files that do not all fit must not
	// replace each other over and over.
	KeptIdle = time.Hour
)

// Options configure a Dir.
type Options struct {
	Budget int64                            // see Options of package cache
	Warnf  func(format string, args ...any) // nil drops warnings
	Any    bool                             // see Options of package cache
	// BlobsOf returns which blobs the record of an image is about.
	BlobsOf func(record []byte) []digest.Digest
}

// A Dir is an open cache directory: what all kinds of files in it have in
// common. It is safe for concurrent use.
type Dir struct {
	path     string // its path, for messages
	files    *beneath.Dir
	readOnly error       // why nothing is written; nil if it is
	unmarked atomic.Bool // the directory has no version yet: the disk was full
	Warnf    func(format string, args ...any)
	blobsOf  func(record []byte) []digest.Digest
	Room     *Budget
	Idle     time.Duration // see KeptIdle

	// badStored counts what was wrong on disk, temporaryBytes what is in
	// temporary files now.
	badStored, temporaryBytes atomic.Int64

	warned     atomic.Bool // that the disk does not take something
	warnedRoom atomic.Bool // that the budget has no room for a temporary file
	warnedOf   atomic.Bool // of what cannot be used

	warnedOthers atomic.Bool // of what is not ours and takes room
	warnedLocks  atomic.Bool // that there are no locks
	RetryWrites  time.Duration
	Disk         Clock // the disk refused a write: see RetryWrites
	NoRoom       Clock // the budget had no room for a chunk: see FullTime

	flying  sync.WaitGroup // what goes on in the directory
	closing chan struct{}  // closed when the directory is about to be
	mu      sync.Mutex
	closed  bool
}

// Open opens a cache directory, and sweeps it.
func Open(dir string, opts Options) (*Dir, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache directory %s: %w", dir, err)
	}
	c := &Dir{path: dir, Warnf: opts.Warnf, blobsOf: opts.BlobsOf, RetryWrites: RetryWrites, Idle: KeptIdle, closing: make(chan struct{})}
	if c.Warnf == nil {
		c.Warnf = func(string, ...any) {}
	}
	var made error
	c.files, c.readOnly, made = openDir(dir, &beneath.Options{Again: c.openAgain, Refused: c.refused})
	if made != nil && !IsFull(made) {
		if !opts.Any {
			return nil, made
		}
		c.files, c.readOnly = beneath.New(dir, nil, &beneath.Options{Again: c.openAgain, Refused: c.refused}), nil
	}
	c.unmarked.Store(made != nil)
	if c.readOnly == nil {
		Sweep(c.files)
	}
	limit := opts.Budget
	if limit == DefaultBudget {
		limit = BudgetFor(c.files)
	}
	c.Room = newBudget(c, limit)
	switch {
	case made == nil:
	case IsFull(made):
		// Whatever is written later makes the directories that it needs.
		c.DiskFailed(errors.Unwrap(made))
	default:
		c.Disk.Refuse()
		c.warned.Store(true)
		c.Warnf("%v; as long as that is so what is read is fetched each time", made)
	}
	return c, nil
}

// openAgain opens the directory again that was removed while it was in use.
func (c *Dir) openAgain() (*os.File, error) {
	d, readOnly, err := openDir(c.path, nil)
	if d == nil {
		return nil, err
	}
	if readOnly != nil {
		return nil, errors.Join(readOnly, d.Close())
	}
	c.unmarked.Store(err != nil)
	if f := d.Detach(); f != nil {
		return f, nil
	}
	return nil, err // the disk is full
}

// Indexes returns where the layer indexes lie, which this package counts and
// removes, and does not read or write.
func (c *Dir) Indexes() *beneath.Dir { return c.files.Sub(Indexes) }

// ReadOnly returns why nothing is written to the directory: nil if it is.
func (c *Dir) ReadOnly() error { return c.readOnly }

// Path returns the absolute path of the cache directory.
func (c *Dir) Path() string { return c.path }

// Name returns the name that the content of digest d has in one of the
// directories by digest. d must be valid: it becomes a part of the name.
func (c *Dir) Name(dir string, d digest.Digest) string {
	return path.Join(dir, d.Algorithm().String(), d.Encoded())
}

// KeyName is Name for what belongs to a key besides; "" is none.
func (c *Dir) KeyName(dir string, d digest.Digest, key string) string {
	if key == "" {
		return c.Name(dir, d)
	}
	return c.Name(dir, d) + "-" + key
}

// Begin counts something that goes on in the directory until End, and
// reports whether it may: the directory is not closed.
func (c *Dir) Begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.flying.Add(1)
	return true
}

// End ends what begin began.
func (c *Dir) End() { c.flying.Done() }

// Go counts a goroutine that goes on in the directory, which is not closed. The
// caller sees to it that none begins once Shut has returned.
func (c *Dir) Go(do func()) { c.flying.Go(do) }

// Wait waits until nothing goes on any more.
func (c *Dir) Wait() { c.flying.Wait() }

// Closing returns what is closed when the directory is about to be.
func (c *Dir) Closing() <-chan struct{} { return c.closing }

// Files returns the directory's files. They are closed with it.
func (c *Dir) Files() *beneath.Dir { return c.files }

// CountBad counts a file, or a chunk, that was wrong on disk.
func (c *Dir) CountBad() { c.badStored.Add(1) }

// CountTemporary says that temporary files have grown by n bytes.
func (c *Dir) CountTemporary(n int64) { c.temporaryBytes.Add(n) }

// IsClosed reports whether the directory is closed, or about to be.
func (c *Dir) IsClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Interrupted returns why what goes on in the directory is to end, if it is.
func (c *Dir) Interrupted(ctx context.Context) error {
	select {
	case <-c.closing:
		return fs.ErrClosed
	default:
		return ctx.Err()
	}
}

// Shut lets nothing new begin.
func (c *Dir) Shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		close(c.closing)
	}
	c.closed = true
}

// Close gives everything back, once nothing goes on any more.
func (c *Dir) Close() error {
	c.Room.close()
	return c.files.Close()
}

// BadStored returns how many files and chunks were wrong on disk.
func (c *Dir) BadStored() int64 { return c.badStored.Load() }

// TemporaryBytes returns how many bytes are in temporary files of this process.
func (c *Dir) TemporaryBytes() int64 { return c.temporaryBytes.Load() }

// SetBudget bounds the directory anew.
func (c *Dir) SetBudget(bytes int64) { c.Room.limit = bytes }
