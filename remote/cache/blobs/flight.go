package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

type blobKey struct {
	digest digest.Digest
	size   int64
	chunk  int64             // 0 unless the chunks are of one size
	sum    [sha256.Size]byte // of the cuts
	local  bool
}

// A blobState is one blob of one Cache: its file, and the flights that bring
// chunks.
type blobState struct {
	blobKey
	cutting
	c     *Cache
	key   string // of its files: see Key
	seals *seals // nil if the chunks are of one size
	count blobCounters
	whole wholeCheck

	file   atomic.Pointer[blobFile] // nil before it is needed, where the disk fails, and of a local blob
	noFile atomic.Bool              // RemoveCuts has removed it

	ctx context.Context // of what goes on without a caller
	end context.CancelFunc

	mu      sync.Mutex
	flights map[int64]*flight // by chunk
	stream  *stream           // nil: the blob is not being sent whole
	waiting []*streamWaiter
	closed  bool
}

// state returns the one blobState of a blob by some cuts.
func (c *Cache) state(d digest.Digest, size int64, cuts Cuts, local bool) (*blobState, error) {
	key := blobKey{digest: d, size: size, sum: cuts.Sum(), local: local}
	if chunks, ok := cuts.(Chunks); ok {
		key.chunk = chunks.Size
	}
	if s, err := c.stateOf(key, nil); s != nil || err != nil {
		return s, err
	}
	x, err := cut(d, size, cuts) // with no lock held: there may be many
	if err != nil {
		return nil, err
	}
	s := &blobState{blobKey: key, cutting: x, c: c, key: Key(cuts)}
	if x.Table != nil {
		s.seals = newSeals(x.Layout.Chunks())
	}
	s.count.unread = make([]atomic.Uint32, (x.Layout.Chunks()+31)/32)
	s.count.expected = make([]atomic.Uint32, (x.Layout.Chunks()+31)/32)
	s.flights = map[int64]*flight{}
	return c.stateOf(key, s)
}

// stateOf returns the blobState of a key. If there is none it is made, unless made is
// nil.
func (c *Cache) stateOf(key blobKey, made *blobState) (*blobState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("cache directory %s: %w", c.dir.Path(), fs.ErrClosed)
	}
	if s := c.states[key]; s != nil || made == nil {
		return s, nil
	}
	// It ends with the Cache, and with no caller.
	made.ctx, made.end = context.WithCancel(context.Background())
	made.recall()
	for _, s := range c.states {
		if s.digest == key.digest && s.sum == key.sum && s.refuted() != nil {
			made.whole.wrong.Store(s.whole.wrong.Load())
		}
	}
	c.states[key] = made
	return made, nil
}

// perRequest returns how many bytes one request may ask for; one chunk is always
// allowed.
func (s *blobState) perRequest() int64 {
	return s.c.sched.line.stats().request(s.c.maxRequest)
}

// fileName returns the name of the blob's file in the directory.
func (s *blobState) fileName() string { return s.c.dir.KeyName(directory.Blobs, s.digest, s.key) }

// shut ends all flights and lets no new one begin.
func (s *blobState) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.end()
	for _, f := range s.flights {
		f.cancel()
	}
}

func (s *blobState) closedError() error {
	return fmt.Errorf("blob %s: cache: %w", s.digest, fs.ErrClosed)
}

func (s *blobState) closeFile() {
	if f := s.file.Swap(nil); f != nil {
		f.f.Close()
	}
}

// openFile returns the blob's file at its present epoch, or nil if the disk
// does not give one.
func (s *blobState) openFile() *blobFile { return s.openFileTo(s.c.dir.MayWrite()) }

// openFileTo is openFile; create says whether to make one if there is none.
func (s *blobState) openFileTo(create bool) *blobFile {
	if s.local || s.refuted() != nil || s.noFile.Load() {
		return nil
	}
	old := s.file.Load()
	if old != nil && old.current() {
		return old
	}
	f, err := s.c.openBlob(s.fileName(), s.Layout, s.seals, create)
	if err != nil {
		if !errors.Is(err, errNoFile) {
			s.c.dir.DiskFailed(err)
		}
		return nil
	}
	if !s.file.CompareAndSwap(old, f) {
		f.f.Close()
		return s.file.Load()
	}
	if s.ctx.Err() != nil {
		s.closeFile() // the cache may have closed its files just before
		return nil
	}
	return f
}

// A reason says who a flight was begun for.
type reason byte

const (
	forReader reason = iota
	forLater         // Prefetch
	expected         // Expect
	forFill
)

// A flight brings a run of neighbouring chunks from disk or source to the
// readers that wait for one of them. The Blob that it was begun for is its
// owner, and gives the source.
type flight struct {
	owner      *Blob
	why        reason
	first, end int64 // chunks
	off        int64 // of data in the blob
	cancel     context.CancelFunc
	waiters    int // guarded by blobState.mu

	data []byte // a chunk of it may be read when it is in got

	mu      sync.Mutex
	got     []origin      // by chunk, from first
	changed chan struct{} // closed when got or over changes; nil while nobody waits
	over    bool
	err     error // why a chunk is missing, when it is over
}

// An origin says where a flight got a chunk.
type origin byte

const (
	missing origin = iota
	fromDisk
	fromMemory
	fromSource
)

// await waits until the flight has brought what it can of the chunks from
// first to end.
func (f *flight) await(ctx context.Context, first, end int64) error {
	k, end := max(first, f.first), min(end, f.end)
	for {
		f.mu.Lock()
		for k < end && f.got[k-f.first] != missing {
			k++
		}
		if k >= end || f.over {
			defer f.mu.Unlock()
			if k < end {
				return f.err
			}
			return nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// land hands the chunks from first to end to those who wait for them.
func (f *flight) land(first, end int64, from origin) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := first; k < end; k++ {
		f.got[k-f.first] = from
	}
	f.tell()
}

// finish says that nothing more will come.
func (f *flight) finish(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over, f.err = true, err
	f.tell()
}

// tell wakes who waits. The caller holds mu.
func (f *flight) tell() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// copyTo copies what data has of the range of p, which begins at off. All of
// it must have landed.
func (f *flight) copyTo(ctx context.Context, p []byte, off int64) {
	s := f.owner.s
	first, end := s.Span(off, off+int64(len(p)))
	for k := max(first, f.first); k < min(end, f.end); k++ {
		at, stop := s.Bounds(k)
		from, to := max(at, off), min(stop, off+int64(len(p)))
		copy(p[from-off:to-off], f.data[from-f.off:])
		if f.got[k-f.first] != fromSource {
			s.hit(to - from)
		}
		s.used(ctx, k, k+1)
	}
}

// run returns the part of data that is the chunks from first to end.
func (f *flight) run(first, end int64) []byte {
	at, _ := f.owner.s.Bounds(first)
	_, stop := f.owner.s.Bounds(end - 1)
	return f.data[at-f.off : stop-f.off]
}

// board returns flights that bring the chunks from first to end, and starts
// those that are not under way, for the reason given. The caller must leave
// them.
func (s *blobState) board(ctx context.Context, b *Blob, first, end int64, why reason) ([]*flight, error) {
	if err := s.refuted(); err != nil {
		return nil, err
	}
	words := s.words(first, end)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, s.closedError()
	}
	var flights []*flight
	for k := first; k < end; {
		f := s.flights[k]
		if f == nil {
			// What is on disk does not wait for the source.
			stop := k + 1
			for stop < end && s.flights[stop] == nil && (words[stop-first] == 0) == (words[k-first] == 0) && s.Gap(stop) <= maxGap {
				stop++
			}
			f = s.start(ctx, b, k, stop, why)
		}
		f.waiters++
		flights = append(flights, f)
		k = f.end
	}
	return flights, nil
}

// words returns the state words of the chunks from first to end, as far as
// the disk gives them.
func (s *blobState) words(first, end int64) []uint32 {
	if f := s.openFile(); f != nil {
		return f.present(first, end)
	}
	return make([]uint32, end-first)
}

// start begins a flight. It outlives ctx, whose values it keeps: leave ends
// it. The caller holds s.mu.
func (s *blobState) start(ctx context.Context, b *Blob, first, end int64, why reason) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{owner: b, why: why, first: first, end: end, off: s.Begin(first), cancel: cancel}
	f.got = make([]origin, end-first)
	for k := first; k < end; k++ {
		s.flights[k] = f
	}
	s.c.dir.Go(func() { s.fly(ctx, f) })
	return f
}

// leave says that somebody no longer needs flights. One that nobody needs is
// cancelled, and nobody can board it any more.
func (s *blobState) leave(flights []*flight) {
	if len(flights) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range flights {
		if f.waiters--; f.waiters == 0 {
			f.cancel()
			s.forget(f)
		}
	}
}

// forget takes a flight off the board. The caller holds s.mu.
func (s *blobState) forget(f *flight) {
	for k := f.first; k < f.end; k++ {
		if s.flights[k] == f {
			delete(s.flights, k)
		}
	}
}

// fly brings the chunks of f.
func (s *blobState) fly(ctx context.Context, f *flight) {
	_, stop := s.Bounds(f.end - 1)
	f.data = make([]byte, stop-f.off)
	file := s.openFile()
	s.load(file, f)
	err := s.fetchMissing(ctx, file, f)
	s.mu.Lock()
	if err != nil && s.closed {
		err = s.closedError()
	}
	s.forget(f)
	s.mu.Unlock()
	f.finish(err)
	switch f.why {
	case forLater:
		s.c.sched.release(int64(len(f.data)))
		s.leave([]*flight{f})
	case expected:
		s.c.sched.expected.release(int64(len(f.data)), err)
		s.c.sched.leave()
		s.leave([]*flight{f})
	}
	if file != nil {
		s.noteComplete(file, f.owner.cuts)
	}
}
