// Package cache keeps on disk what a source of images gave: chunks of
// blobs, each checked against its SHA-256 before it is stored or handed on,
// manifests and configs, checked against their digest, and whole contents of
// files, for the kernel to read by itself.
//
// The idea: bytes are believed because they have the digest that they should
// have, never because of where they lie; and at each later read because they are
// those that had it (package seal). What the disk says about itself
// (which chunks are there) is a hint that saves work, so that nothing needs
// to be in order after a process was killed, and any number of processes can
// share one directory without talking to each other. docs/cache-format.md
// specifies the files.
//
//	c, err := cache.Open(dir, nil)
//	b, err := c.Blob(layer.Blob, cache.Chunks{Size: index.ChunkSize, Sums: index.ChunkSums})
//	n, err := b.ReadAt(ctx, p, off) // from disk; what is missing from layer.Blob
//
// A disk that is full, or fails, costs speed and one warning, never a read.
//
// Options.Budget bounds what the directory takes on disk. Whoever writes makes
// room first, by removing chunks that were used least recently; who still
// wants them fetches them again.
package cache

import (
	"errors"
	"fmt"
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
	defaultMaxRequest = 4 << 20
	// retryWrites is how long the disk is left alone after it refused a
	// write.
	retryWrites = 30 * time.Second
)

// Options configures a Cache. Nil and the zero value mean the defaults.
type Options struct {
	// MaxRequest bounds the bytes asked of a source at once, where
	// neighbouring chunks are missing; one chunk is always allowed. The
	// default is 4 MiB.
	MaxRequest int64
	// Budget bounds the bytes that everything below the directory takes on
	// disk, as du counts them, by what this Cache writes. What does not fit
	// is not stored. Zero means no bound, DefaultBudget the one that suits the
	// disk.
	Budget int64
	// Warnf gets one sentence when the disk first fails to take or give
	// bytes. The default drops it. It may be called by any goroutine.
	Warnf func(format string, args ...any)
}

// A Cache is a cache directory. It is safe for concurrent use, and so is the
// directory for any number of Caches in any number of processes.
type Cache struct {
	dir        string // its path, for messages
	files      *beneath.Dir
	readOnly   error       // why nothing is written; nil if it is
	unmarked   atomic.Bool // the directory has no version yet: the disk was full
	maxRequest int64
	warnf      func(format string, args ...any)
	count      counters
	budget     *budget
	contents   contents

	warned     atomic.Bool // that the disk does not take something
	warnedRoom atomic.Bool // that the budget has no room for a temporary file
	warnedOf   atomic.Bool // of what cannot be used

	warnedOthers atomic.Bool // of what is not ours and takes room
	warnedLocks  atomic.Bool // that there are no locks
	retryWrites  time.Duration
	noWrites     atomic.Int64 // until this time, Unix nanoseconds

	sched  scheduler
	flying sync.WaitGroup // the goroutines of flights, and who is at a content
	mu     sync.Mutex
	states map[blobKey]*blobState
	closed bool
}

// Open opens the cache directory dir and creates it, readable by its owner
// alone, if there is none. It removes what killed processes left unfinished.
// From then on the directory is the one that was opened, whatever becomes of its
// path.
//
// A directory is a cache if it is new or empty, or has the version file of one,
// and belongs to this user, and nobody else may write it or a part of it. It
// fails with a *DirError of any other, of one that is none or cannot be made,
// and of one of a newer format. A cache that this user may only read, their own
// or root's, is used as it is: see ReadOnly. A disk that is full is no failure: it
// costs speed, and a warning.
func Open(dir string, opts *Options) (*Cache, error) {
	if opts == nil {
		opts = &Options{}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache directory %s: %w", dir, err)
	}
	c := &Cache{
		dir:         dir,
		maxRequest:  opts.MaxRequest,
		warnf:       opts.Warnf,
		retryWrites: retryWrites,
		states:      map[blobKey]*blobState{},
	}
	if c.warnf == nil {
		c.warnf = func(string, ...any) {}
	}
	var made error
	c.files, c.readOnly, made = openDir(dir, &beneath.Options{Again: c.openAgain, Refused: c.refused})
	if made != nil && !isFull(made) {
		return nil, made
	}
	c.unmarked.Store(made != nil)
	if c.readOnly == nil {
		sweep(c.files)
	}
	limit := opts.Budget
	if limit == DefaultBudget {
		limit = c.defaultBudget()
	}
	c.budget = newBudget(c, limit)
	c.contents.init()
	if c.maxRequest <= 0 {
		c.maxRequest = defaultMaxRequest
	}
	if made != nil {
		// Whatever is written later makes the directories that it needs.
		c.diskFailed(errors.Unwrap(made))
	}
	return c, nil
}

// openAgain opens the directory again that was removed while it was in use.
func (c *Cache) openAgain() (*os.File, error) {
	d, readOnly, err := openDir(c.dir, nil)
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
func (c *Cache) Indexes() *beneath.Dir { return c.files.Sub(indexesDir) }

// ReadOnly returns why nothing is written to the directory: nil if it is.
func (c *Cache) ReadOnly() error { return c.readOnly }

// Line returns what has been measured of the way to the sources, all of them
// taken together. Sizes of requests go by it.
func (c *Cache) Line() LineStats { return c.sched.line.stats() }

// DefaultDir returns the user's cache directory for imgfs: XDG_CACHE_HOME/imgfs,
// or ~/.cache/imgfs if XDG_CACHE_HOME is not set to an absolute path.
func DefaultDir() (string, error) {
	if base := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "imgfs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory: %w", err)
	}
	return filepath.Join(home, ".cache", "imgfs"), nil
}

// Dir returns the absolute path of the cache directory.
func (c *Cache) Dir() string { return c.dir }

// Close ends all fetches and all that goes on with contents, waits for them and
// closes the files, but not those of open Contents. Reads of the cache's blobs
// fail from then on with an error that wraps fs.ErrClosed.
func (c *Cache) Close() error {
	c.mu.Lock()
	if !c.closed {
		close(c.contents.closing)
	}
	c.closed = true
	stores := c.states
	c.states = nil
	c.mu.Unlock()
	for _, s := range stores {
		s.shut()
	}
	c.flying.Wait()
	for _, s := range stores {
		s.closeFile()
	}
	c.budget.close()
	return c.files.Close()
}

// path returns the name that the content of digest d has in one of the
// directories by digest. d must be valid: it becomes a part of the name.
func (c *Cache) path(dir string, d digest.Digest) string {
	return path.Join(dir, d.Algorithm().String(), d.Encoded())
}

// Stats are the counters of one Cache since it was opened.
type Stats struct {
	// Requests counts reads of blobs at the source for chunks, Fetched the
	// bytes that they gave, and that a Spool has besides: its bytes once.
	Requests, Fetched int64
	// Recorded counts the bytes that recordings took.
	Recorded int64
	// HitBytes counts the bytes handed to readers that came from disk.
	HitBytes int64
	// ContentsStored counts the contents that StoreContent has put on disk,
	// ContentBytes their bytes.
	ContentsStored, ContentBytes int64
	// BadFetched counts chunks from the source, and BadStored chunks, contents,
	// manifests and configs from disk, that had not the digest they should have.
	BadFetched, BadStored int64
	// Temporary is how many bytes are in temporary files now: those of
	// NewTempFile, recordings, and contents that are being stored.
	Temporary int64
	// MetaRequests counts what the source was asked to resolve and to
	// fetch, MetaFetched the bytes of manifests and configs it gave.
	MetaRequests, MetaFetched int64
}

type counters struct {
	requests, fetched, recorded, hitBytes atomic.Int64
	contentsStored, contentBytes          atomic.Int64
	badFetched, badStored, temporary      atomic.Int64
	metaRequests, metaFetched             atomic.Int64
}

// Stats returns the counters as they are now.
func (c *Cache) Stats() Stats {
	n := &c.count
	return Stats{
		Requests:       n.requests.Load(),
		Fetched:        n.fetched.Load(),
		Recorded:       n.recorded.Load(),
		HitBytes:       n.hitBytes.Load(),
		ContentsStored: n.contentsStored.Load(),
		ContentBytes:   n.contentBytes.Load(),
		BadFetched:     n.badFetched.Load(),
		BadStored:      n.badStored.Load(),
		Temporary:      n.temporary.Load(),
		MetaRequests:   n.metaRequests.Load(),
		MetaFetched:    n.metaFetched.Load(),
	}
}
