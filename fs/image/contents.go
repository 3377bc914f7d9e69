package image

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/cache"
)

// docs/architecture.md, "Contents on disk", says what the numbers rest on.
const (
	// minContent is the size from which on a file's content may be kept.
	minContent = 128 << 10
	// checkAtOpen is how much is checked while an open waits for it, and
	// checkInRead while a read does that else would wait for the network.
	checkAtOpen = 1 << 20
	checkInRead = 64 << 20
	// A content is looked for once a lookShare-th of what decoding the file
	// costs has been spent on reading it, and made once makeHalves halves of
	// it have.
	lookShare  = 4
	makeHalves = 3
	// maxOpenContents is how many contents are open, but for those that
	// others hold.
	maxOpenContents = 64
	// A content that was not read in idleTicks periods of contentTick is
	// closed: an open one is not removed to make room.
	contentTick = 10 * time.Second
	idleTicks   = 3
	// maxContentJobs bounds what waits to be looked for and made.
	maxContentJobs = 256
)

// A Backing is an open file on disk with exactly the content of a regular file
// of the tree, checked against its SHA-256.
type Backing struct {
	file  openFile
	close func() error
}

// Fd returns the file's descriptor, valid until Close.
func (b *Backing) Fd() uintptr { return b.file.Fd() }

// Close gives the file back. It must be called once, when no more is read from
// it; what the kernel was given stays readable. It may be called after the
// tree was closed.
func (b *Backing) Close() error { return b.close() }

// Backing returns the file on disk that holds the content of a regular file, if
// there is one now and nobody has written to it since it was checked. If not, it
// notes that one was asked for, and may begin to make it for later. exec says
// that the file is opened to be executed. Backing does not wait for the network
// or for much of the disk.
func (i *Image) Backing(n fs.Node, exec bool) (*Backing, bool) {
	k := i.contents
	if k == nil {
		return nil, false
	}
	c := k.candidate(n)
	if c == nil || i.layers.all[n.Layer()].state.Load().refuted() != nil {
		return nil, false
	}
	x := k.hold(c)
	if x == nil {
		x = k.openNow(c, exec)
	}
	if x == nil {
		return nil, false
	}
	return &Backing{file: x.file, close: func() error { k.release(x); return nil }}, true
}

// BackingProbe returns an empty file without a name where such files lie, to
// find out what the kernel does with them. It is an error, with the reason, if
// the tree keeps none.
func (i *Image) BackingProbe() (*Backing, error) {
	if i.contents == nil {
		return nil, errors.New("no contents of files are kept on disk")
	}
	f, err := i.contents.dir.ContentProbe()
	if err != nil {
		return nil, err
	}
	return &Backing{file: f, close: f.Close}, nil
}

// An openFile is one that the kernel can be given.
type openFile interface {
	io.Closer
	Fd() uintptr
}

// A contentFile is an open file with a content.
type contentFile interface {
	openFile
	io.ReaderAt
	Unchanged() bool
}

// A contentDir is where contents are kept: a cache.Cache, whose
// documentation says what the methods do.
type contentDir interface {
	HasContents() bool
	HasContent(d digest.Digest, size int64) bool
	OpenContent(ctx context.Context, d digest.Digest, size int64) (contentFile, error)
	OpenCheckedContent(d digest.Digest, size int64) (contentFile, error)
	StoreContent(ctx context.Context, d digest.Digest, size int64, r io.Reader) (contentFile, error)
	ContentProbe() (openFile, error)
}

type cacheContents struct{ *cache.Cache }

type cacheContent struct{ *cache.Content }

func (x cacheContent) Fd() uintptr { return x.File().Fd() }

// asFile makes a contentFile of a Content.
func asFile(x *cache.Content, err error) (contentFile, error) {
	if err != nil {
		return nil, err
	}
	return cacheContent{x}, nil
}

func (c cacheContents) OpenContent(ctx context.Context, d digest.Digest, size int64) (contentFile, error) {
	return asFile(c.Cache.OpenContent(ctx, d, size))
}

func (c cacheContents) OpenCheckedContent(d digest.Digest, size int64) (contentFile, error) {
	return asFile(c.Cache.OpenCheckedContent(d, size))
}

func (c cacheContents) StoreContent(ctx context.Context, d digest.Digest, size int64, r io.Reader) (contentFile, error) {
	return asFile(c.Cache.StoreContent(ctx, d, size, r))
}

func (c cacheContents) ContentProbe() (openFile, error) {
	f, err := c.Cache.ContentProbe()
	if err != nil {
		return nil, err
	}
	return f, nil
}

// contents decides which contents of a tree's files are kept on disk whole, and
// has those open that are read.
type contents struct {
	dir contentDir
	img *Image

	ctx    context.Context // ends with the tree
	cancel context.CancelFunc
	work   sync.WaitGroup // the goroutine that looks for contents and makes them

	kept, keptBytes atomic.Int64 // written
	// clock rises with each content that is opened and with each tick.
	clock atomic.Int64

	mu      sync.Mutex
	closed  bool
	open    []*openContent
	ticks   *time.Timer // nil before the first content is opened
	tick    time.Duration
	queue   []*contentJob
	working bool
	tables  map[*layerState]func() (*digestTable, error)
}

func newContents(t *Image, dir contentDir) *contents {
	k := &contents{dir: dir, img: t, tick: contentTick, tables: map[*layerState]func() (*digestTable, error){}}
	// It ends with the tree, and with no caller.
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// A candidate is a file whose content may be kept.
type candidate struct {
	n     fs.Node
	layer *Layer
	// cost is how many bytes are decoded to get at all of the file.
	cost    int64
	decoded atomic.Int64 // bytes, for reads of the file
	due     atomic.Int64 // what decoded must come to for something to be done
	open    atomic.Pointer[openContent]
	sought  atomic.Bool // it was looked for before anything was fetched for it
	shelved atomic.Bool // it was closed, and may be opened again

	// Guarded by contents.mu:
	execs int         // opens to execute it, without its content
	job   *contentJob // waiting, or under way
}

// mayKeep reports whether the content of n is worth keeping, as far as its
// attributes say.
func mayKeep(n fs.Node) bool {
	off, end := n.Extent()
	return end-off >= minContent && n.Mode()&syscall.S_IFMT == syscall.S_IFREG && !n.IsSparse()
}

// candidate returns what is known of a file, nil if its content is not kept.
func (k *contents) candidate(n fs.Node) *candidate {
	if !mayKeep(n) {
		return nil
	}
	if f := k.countsOf(n); f != nil {
		return f.candidate
	}
	return nil
}

// countsOf returns the counters of a file whose content may be kept, nil if
// there are too many.
func (k *contents) countsOf(n fs.Node) *fileCounts {
	files := &k.img.counts.files
	if f := files.get(fileID(n)); f != nil {
		return f
	}
	return files.make(fileID(n), newCandidate(n, k.img.layers.all[n.Layer()]))
}

func newCandidate(n fs.Node, l *Layer) *candidate {
	off, end := n.Extent()
	out, _, _, err := l.state.Load().reader.Source(off, end)
	if err != nil {
		out = off // a guess, while the index cannot be read
	}
	c := &candidate{n: n, layer: l, cost: end - out}
	c.due.Store(c.cost / lookShare)
	return c
}

// size is that of the file.
func (c *candidate) size() int64 {
	off, end := c.n.Extent()
	return end - off
}

// makeAt is how much has to have been decoded for the content to be made.
func (c *candidate) makeAt() int64 { return c.cost / 2 * makeHalves }

// digest returns the SHA-256 of a candidate. The error is errNoDigest, or that of
// an index that has become wrong.
func (k *contents) digest(c *candidate) (digest.Digest, error) {
	l := c.layer
	s := l.state.Load()
	if err := s.refuted(); err != nil {
		return "", err
	}
	k.mu.Lock()
	load := k.tables[s]
	if load == nil {
		load = sync.OnceValues(func() (*digestTable, error) { return newDigestTable(k.ctx, s.index, minContent) })
		k.tables[s] = load
	}
	k.mu.Unlock()
	table, err := load()
	if err != nil {
		l.beginMend(s, err)
		k.mu.Lock()
		delete(k.tables, s) // the next one tries again
		k.mu.Unlock()
		return "", err
	}
	off, end := c.n.Extent()
	sum, ok := table.find(off, end-off)
	if !ok {
		return "", errNoDigest
	}
	return asDigest(sum), nil
}

// count fills in what is known here of the counters.
func (k *contents) count(s *ContentStats) {
	s.Kept, s.KeptBytes = k.kept.Load(), k.keptBytes.Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Open, s.Waiting = len(k.open), len(k.queue)
}

// close ends the work, and closes what nobody holds.
func (k *contents) close() {
	k.cancel()
	k.mu.Lock()
	k.closed = true
	if k.ticks != nil {
		k.ticks.Stop()
	}
	k.mu.Unlock()
	k.work.Wait()
	k.closeAll()
}
