package blobcache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// touchAfter is how old, in seconds, a chunk's state word gets before its use
// is noted again.
const touchAfter = 3600

type storeKey struct {
	digest digest.Digest
	layout layout
	sums   [sha256.Size]byte // of Chunks.Sums
}

// A store is one blob of one Cache: its file, and the flights that bring
// chunks.
type store struct {
	layout
	c          *Cache
	digest     digest.Digest
	chunks     Chunks
	perRequest int64 // chunks in one request

	file atomic.Pointer[blobFile] // nil before it is needed, and where the disk fails

	mu      sync.Mutex
	flights map[int64]*flight // by chunk
	closed  bool
}

// store returns the one store of a blob.
func (c *Cache) store(d digest.Digest, l layout, chunks Chunks) (*store, error) {
	key := storeKey{d, l, sha256.Sum256(chunks.Sums)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("cache directory %s: %w", c.dir, fs.ErrClosed)
	}
	s := c.stores[key]
	if s == nil {
		s = &store{layout: l, c: c, digest: d, chunks: chunks, perRequest: max(1, c.maxRequest/l.chunk)}
		s.flights = map[int64]*flight{}
		c.stores[key] = s
	}
	return s, nil
}

// shut ends all flights and lets no new one begin.
func (s *store) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, f := range s.flights {
		f.cancel()
	}
}

func (s *store) closeFile() {
	if f := s.file.Swap(nil); f != nil {
		f.f.Close()
	}
}

// openFile returns the blob's file at its present epoch, or nil if the disk
// does not give one.
func (s *store) openFile() *blobFile {
	old := s.file.Load()
	if old != nil && old.current() {
		return old
	}
	f, err := openBlobFile(s.c.path(blobsDir, s.digest), s.layout, s.c.mayWrite())
	if err != nil {
		if !errors.Is(err, errNoFile) {
			s.c.diskFailed(err)
		}
		return nil
	}
	if !s.file.CompareAndSwap(old, f) {
		f.f.Close()
		return s.file.Load()
	}
	return f
}

// A flight brings a run of neighbouring chunks from disk or source to the
// readers that wait for one of them. The Blob that it was begun for is its
// owner, and gives the source.
type flight struct {
	owner      *Blob
	first, end int64 // chunks
	off        int64 // of data in the blob
	cancel     context.CancelFunc
	waiters    int // guarded by store.mu

	// What follows is set before done is closed.
	done chan struct{}
	data []byte
	got  []origin // by chunk, from first
	err  error    // why a chunk is missing
}

// An origin says where a flight got a chunk.
type origin byte

const (
	missing origin = iota
	fromDisk
	fromSource
)

// copyTo copies what data has of the range of p, which begins at off.
func (f *flight) copyTo(p []byte, off int64) error {
	s := f.owner.s
	for k := f.first; k < f.end; k++ {
		at, stop := s.bounds(k)
		from, to := max(at, off), min(stop, off+int64(len(p)))
		if from >= to {
			continue
		}
		if f.got[k-f.first] == missing {
			return f.err
		}
		copy(p[from-off:to-off], f.data[from-f.off:])
		if f.got[k-f.first] == fromDisk {
			s.c.count.hitBytes.Add(to - from)
		}
	}
	return nil
}

// chunk returns the part of data that is chunk k.
func (f *flight) chunk(k int64) []byte {
	at, end := f.owner.s.bounds(k)
	return f.data[at-f.off : end-f.off]
}

// board returns flights that bring the chunks from first to end, and starts
// those that are not under way. The caller must leave them.
func (s *store) board(ctx context.Context, b *Blob, first, end int64) ([]*flight, error) {
	words := make([]uint32, end-first)
	if f := s.openFile(); f != nil {
		words = f.present(first, end)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("blob %s: cache: %w", s.digest, fs.ErrClosed)
	}
	var flights []*flight
	for k := first; k < end; {
		f := s.flights[k]
		if f == nil {
			// What is on disk does not wait for the source.
			stop := k + 1
			for stop < end && s.flights[stop] == nil && (words[stop-first] == 0) == (words[k-first] == 0) {
				stop++
			}
			f = s.start(ctx, b, k, stop)
		}
		f.waiters++
		flights = append(flights, f)
		k = f.end
	}
	return flights, nil
}

// start begins a flight. It outlives ctx, whose values it keeps: leave ends
// it. The caller holds s.mu.
func (s *store) start(ctx context.Context, b *Blob, first, end int64) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{owner: b, first: first, end: end, off: first * s.chunk, cancel: cancel, done: make(chan struct{})}
	for k := first; k < end; k++ {
		s.flights[k] = f
	}
	s.c.flying.Add(1)
	go s.fly(ctx, f)
	return f
}

// leave says that a reader no longer needs flights. One that nobody needs is
// cancelled, and nobody can board it any more.
func (s *store) leave(flights []*flight) {
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
func (s *store) forget(f *flight) {
	for k := f.first; k < f.end; k++ {
		if s.flights[k] == f {
			delete(s.flights, k)
		}
	}
}

// fly brings the chunks of f.
func (s *store) fly(ctx context.Context, f *flight) {
	defer s.c.flying.Done()
	_, stop := s.bounds(f.end - 1)
	f.data = make([]byte, stop-f.off)
	f.got = make([]origin, f.end-f.first)
	file := s.openFile()
	if file != nil {
		s.load(file, f)
	}
	f.err = s.fetchMissing(ctx, file, f)
	s.mu.Lock()
	s.forget(f)
	s.mu.Unlock()
	close(f.done)
}

// load takes from disk what is there and sound. A chunk that is not what it
// should be is dropped.
func (s *store) load(file *blobFile, f *flight) {
	for i, word := range file.present(f.first, f.end) {
		if word == 0 {
			continue
		}
		k := f.first + int64(i)
		data := f.chunk(k)
		if _, err := file.f.ReadAt(data, k*s.chunk); err != nil || !s.chunks.match(k, data) {
			if file.current() {
				s.c.count.badStored.Add(1)
				file.clearSound(k)
				_ = file.setWord(k, 0) // else it is found wrong again
			}
			continue
		}
		f.got[i] = fromDisk
		file.setSound(k)
		if now := stamp(); now-word > touchAfter && s.c.mayWrite() {
			_ = file.setWord(k, now) // it only says what to remove first
		}
	}
}

// fetchMissing asks the source for what f lacks. A wrong chunk does not keep
// it from bringing others; a source that cannot be asked does.
func (s *store) fetchMissing(ctx context.Context, file *blobFile, f *flight) error {
	var first error
	for k := f.first; k < f.end; {
		end := k
		for end < f.end && f.got[end-f.first] == missing {
			end++
		}
		if end == k {
			k++
			continue
		}
		err := s.fetch(ctx, file, f, k, end)
		if err != nil && !errors.Is(err, remote.ErrDigest) {
			return err
		}
		if first == nil {
			first = err
		}
		k = end
	}
	return first
}

// fetch brings the chunks from first to end in one request, and then those
// that were wrong once more, each by itself.
func (s *store) fetch(ctx context.Context, file *blobFile, f *flight, first, end int64) error {
	if err := s.request(ctx, file, f, first, end); err != nil {
		return err
	}
	for k := first; k < end; k++ {
		if f.got[k-f.first] != missing {
			continue
		}
		if err := s.request(ctx, file, f, k, k+1); err != nil {
			return err
		}
		if f.got[k-f.first] == missing {
			at, stop := s.bounds(k)
			return fmt.Errorf("blob %s: chunk %d (bytes %d to %d): %w", s.digest, k, at, stop-1, remote.ErrDigest)
		}
	}
	return nil
}

// request reads the chunks from first to end from the source and keeps those
// that are right. An early end of the content is no error here: it leaves
// chunks missing.
func (s *store) request(ctx context.Context, file *blobFile, f *flight, first, end int64) error {
	at, _ := s.bounds(first)
	_, stop := s.bounds(end - 1)
	s.c.count.requests.Add(1)
	n, err := f.owner.src.ReadAt(ctx, f.data[at-f.off:stop-f.off], at)
	n = max(0, min(n, int(stop-at)))
	s.c.count.fetched.Add(int64(n))
	for k := first; k < end; k++ {
		_, stop := s.bounds(k)
		if stop-at > int64(n) {
			break
		}
		if !s.chunks.match(k, f.chunk(k)) {
			s.c.count.badFetched.Add(1)
			continue
		}
		f.got[k-f.first] = fromSource
		s.keep(file, k, f.chunk(k))
	}
	if n == int(stop-at) || err == nil || isEnd(err) {
		return nil
	}
	return fmt.Errorf("blob %s: %w", s.digest, err)
}

// isEnd reports whether err says that the content ends, and not a connection.
func isEnd(err error) bool {
	return (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && !errors.Is(err, remote.ErrUnavailable)
}

// keep stores a chunk that has been checked, if the disk takes it.
func (s *store) keep(file *blobFile, k int64, data []byte) {
	if file == nil || !s.c.mayWrite() {
		return
	}
	if err := file.write(k, data); err != nil {
		s.c.diskFailed(err)
	}
}
