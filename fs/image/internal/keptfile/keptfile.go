// Package keptfile keeps files of an image on disk that are read again and again,
// each whole and under the digest of its content, so that reading them decodes
// nothing. It decides which files, when they are looked for, made and opened, and
// stands before the Content of each layer; a Dir has the files.
//
// docs/architecture.md, "Contents on disk", says what that costs and gains.
package keptfile

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
	"github.com/imgfs/imgfs/fs/image/internal/filetable"
)

// docs/architecture.md, "Contents on disk", says what the numbers rest on.
const (
	// MinSize is the size from which on a file may be kept.
	MinSize = 128 << 10
	// CheckAtOpen is how much is checked while an open waits for it, and
	// checkInRead while a read does that else would wait for the network.
	CheckAtOpen = 1 << 20
	checkInRead = 64 << 20
	// A kept file is looked for once a lookShare-th of what decoding the file
	// costs has been spent on reading it, and made once makeHalves halves of
	// it have.
	lookShare  = 4
	makeHalves = 3
	// MaxOpen is how many kept files are open, but for those that others hold.
	MaxOpen = 64
	// A kept file that was not read in IdleTicks periods of tickTime is
	// closed: an open one is not removed to make room.
	tickTime  = 10 * time.Second
	IdleTicks = 3
	// MaxJobs bounds how many files wait to be looked for and made.
	MaxJobs = 256
)

// A Descriptor is an open file that the kernel can be given.
type Descriptor interface {
	io.Closer
	Fd() uintptr
}

// A File is an open kept file. It is safe for concurrent use.
type File interface {
	Descriptor
	io.ReaderAt
	// Unchanged reports whether the file has not been written to since it was
	// checked.
	Unchanged() bool
}

// A Dir is where kept files are, by the digest of their content and its size. It
// is safe for concurrent use.
type Dir interface {
	// Any reports whether there may be any file.
	Any() bool
	// Has reports whether a file is there, not checked.
	Has(d digest.Digest, size int64) bool
	// Open opens a file, and checks it if that has not been done.
	Open(ctx context.Context, d digest.Digest, size int64) (File, error)
	// OpenChecked opens a file that has been checked.
	OpenChecked(d digest.Digest, size int64) (File, error)
	// Store makes a file of what r reads, and opens it.
	Store(ctx context.Context, d digest.Digest, size int64, r io.Reader) (File, error)
	// Probe opens an empty file without a name in the same place.
	Probe() (Descriptor, error)
}

// A Layer is a layer whose files may be kept: what there is to know of them, and
// how to read them otherwise. It is safe for concurrent use.
type Layer interface {
	fs.Content
	// Refuted returns why the index of the layer is wrong, nil if it is not
	// known to be.
	Refuted() error
	// DecodedFrom returns from which byte of the layer decoding begins to get
	// at the byte at off.
	DecodedFrom(off, end int64) (int64, error)
	// Present reports whether the bytes from off to end of the layer can be
	// decoded without fetching anything. The last slack bytes of what they are
	// decoded from do not count.
	Present(off, end, slack int64) (bool, error)
	// LargeFileDigest is FileDigest of a file of at least MinSize, which does
	// not read the index each time. What it reads ends with ctx.
	LargeFileDigest(ctx context.Context, n fs.Node) (d digest.Digest, ok bool, err error)
	// NewReader returns a stream of the layer that is not that of its readers,
	// and fetches nothing. noRoom is called if it needs a temporary file and
	// there is none.
	NewReader(noRoom func()) StreamCloser
}

// A StreamCloser is a stream that has to be closed.
type StreamCloser interface {
	fs.Stream
	io.Closer
}

// Stats are the counters of the files that an image keeps on disk.
type Stats struct {
	Open      int   `json:"open"`      // now
	Kept      int64 `json:"kept"`      // files that were written
	KeptBytes int64 `json:"keptBytes"` // their bytes
	ReadBytes int64 `json:"readBytes"` // bytes that fs.Node.ReadAt read from kept files
	Waiting   int   `json:"waiting"`   // to be looked for, checked or written
}

// Files are the kept files of one image: it decides which there are, and has
// those open that are read. It is safe for concurrent use after Init.
type Files struct {
	dir    Dir
	layers []*content
	reads  func() int64 // of the image

	ctx    context.Context // ends with the image
	cancel context.CancelFunc
	work   sync.WaitGroup // the goroutine that looks for files and makes them

	candidates filetable.Table[candidate]

	kept, keptBytes atomic.Int64 // written
	// clock rises with each file that is opened and with each tick.
	clock atomic.Int64

	mu      sync.Mutex
	closed  bool
	open    []*openFile
	ticks   *time.Timer // nil before the first file is opened
	queue   []*job
	working bool
}

// New returns the kept files of an image with so many layers. reads says how many
// reads of the image there have been, which are not to be disturbed.
func New(dir Dir, layers int, reads func() int64) *Files {
	k := &Files{dir: dir, layers: make([]*content, layers), reads: reads}
	// It ends with the image, and with no caller.
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// Init makes room for the files of the image's tree, before anything is read.
func (k *Files) Init(t *fs.Tree) { k.candidates.Init(t.Len()) }

// Content returns the content of the layer at a position, which is read from kept
// files where there are any. Of layers for which it is not called none are kept.
func (k *Files) Content(at int, of Layer) fs.Content {
	k.layers[at] = &content{Layer: of, files: k}
	return k.layers[at]
}

// Stats returns the counters.
func (k *Files) Stats() Stats {
	s := Stats{Kept: k.kept.Load(), KeptBytes: k.keptBytes.Load()}
	for _, x := range k.layers {
		if x != nil {
			s.ReadBytes += x.read.Load()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Open, s.Waiting = len(k.open), len(k.queue)
	return s
}

// Decoded counts bytes that were decoded for a file.
func (k *Files) Decoded(n fs.Node, bytes int64) {
	if c := k.candidates.Get(n); c != nil {
		c.decoded.Add(bytes)
	}
}

// Cost returns how many bytes were decoded for a file that may be kept, and how
// many it takes to decode all of it.
func (k *Files) Cost(n fs.Node) (decoded, all int64) {
	if c := k.candidate(n); c != nil {
		return c.decoded.Load(), c.cost
	}
	return 0, 0
}

// A Held is a kept file that somebody holds: it has exactly the content of a
// regular file of the tree, checked against its SHA-256.
type Held struct {
	file  Descriptor
	close func() error
}

// Fd returns the file's descriptor, which is valid until Close.
func (h *Held) Fd() uintptr { return h.file.Fd() }

// Close gives the file back. It must be called once, when no more is read from
// it; what the kernel was given stays readable. It may be called after the image
// was closed.
func (h *Held) Close() error { return h.close() }

// Hold returns the kept file of a regular file: see image.Image.KeptFile.
func (k *Files) Hold(n fs.Node, exec bool) (*Held, bool) {
	c := k.candidate(n)
	if c == nil || c.layer.Refuted() != nil {
		return nil, false
	}
	x := k.hold(c)
	if x == nil {
		x = k.openNow(c, exec)
	}
	if x == nil {
		return nil, false
	}
	return &Held{file: x.file, close: func() error { k.release(x); return nil }}, true
}

// Probe returns an empty file without a name where kept files lie.
func (k *Files) Probe() (*Held, error) {
	f, err := k.dir.Probe()
	if err != nil {
		return nil, err
	}
	return &Held{file: f, close: f.Close}, nil
}

// SetDir puts another place in front of the one where the files are, before
// anything is read.
func (k *Files) SetDir(in func(Dir) Dir) { k.dir = in(k.dir) }

// Wait waits until no file is looked for, checked or made.
func (k *Files) Wait() { k.work.Wait() }

// A candidate is a file that may be kept.
type candidate struct {
	n     fs.Node
	layer Layer
	// cost is how many bytes are decoded to get at all of the file.
	cost    int64
	decoded atomic.Int64 // bytes, for reads of the file
	due     atomic.Int64 // what decoded must come to for something to be done
	open    atomic.Pointer[openFile]
	sought  atomic.Bool // it was looked for before anything was fetched for it
	shelved atomic.Bool // it was closed, and may be opened again
	read    atomic.Bool // somebody has read it

	// Guarded by Files.mu:
	execs int  // opens to execute it, while it was not kept
	job   *job // waiting, or under way
}

// mayKeep reports whether a regular file is worth keeping, as far as its
// attributes say.
func mayKeep(n fs.Node) bool {
	off, end := n.Extent()
	return end-off >= MinSize && !n.IsSparse()
}

// candidate returns what is known of a file, nil if it is not kept.
func (k *Files) candidate(n fs.Node) *candidate {
	if n.Mode()&syscall.S_IFMT != syscall.S_IFREG || !mayKeep(n) {
		return nil
	}
	of := k.layers[n.Layer()]
	if of == nil {
		return nil
	}
	return k.candidateOf(n, of.Layer)
}

// candidateOf returns what is known of a file of a layer that may be kept, nil
// if there are too many.
func (k *Files) candidateOf(n fs.Node, l Layer) *candidate {
	if c := k.candidates.Get(n); c != nil {
		return c
	}
	off, end := n.Extent()
	from, err := l.DecodedFrom(off, end)
	if err != nil {
		from = off // a guess, while the index cannot be read
	}
	c := &candidate{n: n, layer: l, cost: end - from}
	c.due.Store(c.cost / lookShare)
	return k.candidates.Make(n, c)
}

// size is that of the file.
func (c *candidate) size() int64 {
	off, end := c.n.Extent()
	return end - off
}

// makeAt is how much has to have been decoded for the file to be made.
func (c *candidate) makeAt() int64 { return c.cost / 2 * makeHalves }

// errNoDigest: the index does not know what a file's content should be.
var errNoDigest = errors.New("no digest")

// digest returns the SHA-256 of a candidate. The error is errNoDigest, or that of
// an index that has become wrong.
func (k *Files) digest(c *candidate) (digest.Digest, error) {
	d, ok, err := c.layer.LargeFileDigest(k.ctx, c.n)
	if err == nil && !ok {
		err = errNoDigest
	}
	return d, err
}

// Close ends the work, and closes the files that are not held.
func (k *Files) Close() {
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
