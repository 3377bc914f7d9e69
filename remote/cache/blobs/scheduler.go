package blobs

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const (
	// maxAhead and maxAheadRequests bound what Prefetch has under way, in
	// bytes and in requests: a host takes some 16 at a time, and readers need
	// some of them, and most of them where no more than minAheadRequests keep
	// the line busy. maxAheadMemory is the bound where the disk takes nothing.
	maxAhead                           = 16 << 20
	minAheadRequests, maxAheadRequests = 6, 12
	maxAheadMemory                     = maxRecent / 2
	// grace is how long after a reader Fill leaves the source alone: readers
	// seldom come alone.
	grace = 50 * time.Millisecond
	// maxRecent bounds the bytes of chunks that are kept in memory, but for one chunk.
	maxRecent = 8 << 20
)

// A scheduler is what a Cache knows of the flights of all its blobs. The zero
// value is ready for use.
type scheduler struct {
	recent recentChunks
	line   lineSpeed
	// expected are the flights of Expect.
	expected expectations

	mu    sync.Mutex
	busy  int           // readers that wait, and prefetches under way
	last  time.Time     // when busy became 0
	idle  chan struct{} // closed when busy becomes 0; nil while nobody waits for that
	ahead int64         // bytes that Prefetch has under way
	runs  int           // requests of Prefetch under way
}

// enter says that a reader begins to wait.
func (t *scheduler) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy++
}

// leave says that a reader waits no longer.
func (t *scheduler) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest()
}

// rest counts one less that is busy. The caller holds mu.
func (t *scheduler) rest() {
	if t.busy--; t.busy > 0 {
		return
	}
	t.last = time.Now()
	if t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// quiet waits until no reader has waited for anything for a while.
func (t *scheduler) quiet(ctx context.Context) error {
	for {
		t.mu.Lock()
		if t.busy > 0 && t.idle == nil {
			t.idle = make(chan struct{})
		}
		idle, busy, rest := t.idle, t.busy > 0, grace-time.Since(t.last)
		t.mu.Unlock()
		switch {
		case busy:
			select {
			case <-idle:
			case <-ctx.Done():
				return ctx.Err()
			}
		case rest > 0:
			if err := sleep(ctx, rest); err != nil {
				return err
			}
		default:
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reserve asks for a prefetch of the chunks from first to end, and returns where it
// must end; most and requests are the bounds on all of them, in bytes and in number.
// Each one that is not empty must be released.
func (t *scheduler) reserve(x *cutting, first, end, most int64, requests int) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runs >= requests {
		return first
	}
	at, _ := x.Bounds(first)
	bytes := func() int64 {
		_, stop := x.Bounds(end - 1)
		return stop - at
	}
	if room := most - t.ahead; bytes() > room {
		if end = x.run(first, end, room); bytes() > room && t.ahead > 0 {
			return first
		}
	}
	t.ahead += bytes()
	t.runs++
	t.busy++
	return end
}

// release says that a prefetch of n bytes is over.
func (t *scheduler) release(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ahead -= n
	t.runs--
	t.rest()
}

// takes reports whether what is fetched now can be expected to reach the
// disk.
func (c *Cache) takes() bool {
	return c.dir.MayWrite() && !c.dir.NoRoom.Within(directory.RetryWrites)
}

// recentChunks are chunks that have been checked and are not on disk: those
// of local blobs, and where the disk takes nothing. The zero value is empty.
type recentChunks struct {
	size atomic.Int64 // bytes

	mu     sync.Mutex
	chunks map[chunkKey]*list.Element
	order  list.List // of recentChunk, the one used last in front
}

type chunkKey struct {
	s *blobState
	k int64
}

type recentChunk struct {
	chunkKey
	data []byte
}

// put adds a copy of a chunk, which must have been checked.
func (r *recentChunks) put(s *blobState, k int64, data []byte) {
	if s.Table == nil && len(data) > maxRecent/4 {
		return // else it is kept alone, as each small read would bring all of it again
	}
	data = append([]byte(nil), data...)
	key := chunkKey{s, k}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.chunks[key]; e != nil {
		r.order.MoveToFront(e)
		return
	}
	if r.chunks == nil {
		r.chunks = map[chunkKey]*list.Element{}
	}
	r.chunks[key] = r.order.PushFront(recentChunk{key, data})
	size := r.size.Add(int64(len(data)))
	for size > maxRecent && r.order.Len() > 1 {
		old := r.order.Remove(r.order.Back()).(recentChunk)
		delete(r.chunks, old.chunkKey)
		size = r.size.Add(-int64(len(old.data)))
	}
}

// get returns chunk k, nil if it is not there. The caller holds mu.
func (r *recentChunks) get(s *blobState, k int64) []byte {
	e := r.chunks[chunkKey{s, k}]
	if e == nil {
		return nil
	}
	r.order.MoveToFront(e)
	return e.Value.(recentChunk).data
}

// copy fills data with chunk k if it is there.
func (r *recentChunks) copy(s *blobState, k int64, data []byte) bool {
	if r.size.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return copy(data, r.get(s, k)) > 0
}

// read fills p if all its chunks, those from first to end, are there.
func (r *recentChunks) read(s *blobState, p part, first, end int64) bool {
	if r.size.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := first; k < end; k++ {
		data := r.get(s, k)
		if data == nil {
			return false
		}
		off, _ := s.Bounds(k)
		from, to := max(off, p.off), min(off+int64(len(data)), p.off+int64(len(p.p)))
		copy(p.p[from-p.off:to-p.off], data[from-off:])
	}
	return true
}

// has reports whether chunk k is there.
func (r *recentChunks) has(s *blobState, k int64) bool {
	if r.size.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.chunks[chunkKey{s, k}] != nil
}
