// Package blobs keeps chunks of blobs in a cache directory and fetches those that are
// missing: each is verified before it is stored or handed on, and fetched once
// however many readers want it. Cuts says how a blob is cut into chunks, of one size
// or of any, and verifies them. It measures the line, and decides how much is asked
// for at once and who is served first: readers, then what is read ahead or expected to be
// read, then Fill.
// The words are those of package cache.
package blobs

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

const defaultMaxRequest = 4 << 20

// A Cache is the blobs of a cache directory. It is safe for concurrent use.
type Cache struct {
	dir        *directory.Dir
	meta       *meta.Cache
	maxRequest int64
	count      counters
	sched      scheduler

	mu     sync.Mutex
	states map[blobKey]*blobState
	closed bool
}

type counters struct {
	requests, fetched, recorded, hitBytes, badFetched atomic.Int64
	expected, met                                     atomic.Int64 // see Expected
}

// New returns the blobs of a directory. maxRequest bounds the bytes of a request; 0
// means 4 MiB.
func New(d *directory.Dir, m *meta.Cache, maxRequest int64) *Cache {
	c := &Cache{dir: d, meta: m, maxRequest: maxRequest, states: map[blobKey]*blobState{}}
	if c.maxRequest <= 0 {
		c.maxRequest = defaultMaxRequest
	}
	return c
}

// Line returns what has been measured of the way to the sources, all of them
// taken together. Sizes of requests go by it.
func (c *Cache) Line() LineStats { return c.sched.line.stats() }

// Shut ends all fetches and lets no new one begin.
func (c *Cache) Shut() {
	c.mu.Lock()
	c.closed = true
	states := c.states
	c.mu.Unlock()
	for _, s := range states {
		s.shut()
	}
}

// CloseFiles closes the files of all blobs, after Shut, when nothing uses them
// any more.
func (c *Cache) CloseFiles() {
	c.mu.Lock()
	states := c.states
	c.states = nil
	c.mu.Unlock()
	for _, s := range states {
		s.closeFile()
	}
}

// Counts are the counters of a Cache since it was made: see Stats of package
// cache.
type Counts struct{ Requests, Fetched, Recorded, HitBytes, BadFetched int64 }

// Counts returns the counters as they are now.
func (c *Cache) Counts() Counts {
	n := &c.count
	return Counts{n.requests.Load(), n.fetched.Load(), n.recorded.Load(), n.hitBytes.Load(), n.badFetched.Load()}
}

// openBlob is openBlobFile for a blob file; it is made only if budget and disk take
// it.
func (c *Cache) openBlob(name string, l blobfile.Layout, known *seals, create bool) (*blobFile, error) {
	how := blobUse
	if c.dir.ReadOnly() != nil {
		how = blobRead
	}
	f, err := openBlobFile(c.dir.Files(), name, l, known, how)
	if create && errors.Is(err, errNoFile) {
		f, err = c.makeBlob(name, l, known)
	}
	if err == nil && f.unsure && how != blobRead {
		c.dir.WarnLocks()
	}
	return f, err
}

// makeBlob makes a blob file if budget and disk take it.
func (c *Cache) makeBlob(name string, l blobfile.Layout, known *seals) (f *blobFile, err error) {
	made, err := c.dir.Within(directory.FileRoom(l.FileSize()-l.Word(l.Chunks())), directory.Rule{Often: true}, func() (err error) {
		f, err = openBlobFile(c.dir.Files(), name, l, known, blobMake)
		return err
	})
	if !made && err == nil {
		err = errNoFile
	}
	return f, err
}
