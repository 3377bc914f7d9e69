package blobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const (
	// Of what is expected to be read as much is under way as the line brings in expectTrips
	// round trips and in expectTime, at most in expectMost, in requests of half of it or
	// less. That is as much also while readers wait: mostly they wait for what is about to
	// come, and with less than two round trips under way the line is idle, and readers
	// overtake what is fetched for them, one request after the other.
	expectTrips              = 4
	expectTime               = 40 * time.Millisecond
	expectMost               = time.Second
	minExpected, maxExpected = 256 << 10, 8 << 20
	unknownExpected          = 1 << 20 // while nothing is known of the line
)

// expectations are the flights for what is expected to be read, of all blobs. The zero value
// has none.
type expectations struct {
	mu      sync.Mutex
	flying  int64         // bytes under way
	changed chan struct{} // closed when there is more room; nil while nobody waits
	err     error         // the last one of a flight that failed, until somebody was told
}

// Expect begins to bring what is missing of n bytes of the blob from off, which are expected
// to be read though nobody has begun to. It returns when all of it is under way, or there:
// it waits until the line has room for it beside what readers want. It is the caller who
// decides how much is expected, and in which order. Of a local blob it brings nothing. It
// returns how many bytes are under way for it.
//
// The error is ctx.Err(), one of something that was expected before and could not be
// fetched, or wraps ErrFull of package directory, where nothing that is fetched can be kept.
func (b *Blob) Expect(ctx context.Context, off, n int64) (begun int64, err error) {
	s := b.s
	if off < 0 || n <= 0 || off >= s.Size || s.local {
		return 0, nil
	}
	if err := s.refuted(); err != nil {
		return 0, err
	}
	first, end := s.Span(off, off+min(n, s.Size-off))
	for k := first; k < end; {
		if !s.c.takes() {
			return begun, s.c.noRoom()
		}
		next, stop := s.lacking(k, end, s.c.sched.expected.request(s.c.sched.line.stats()))
		if next == stop {
			return begun, nil
		}
		at, _ := s.Bounds(next)
		_, last := s.Bounds(stop - 1)
		if err := s.c.sched.expected.admit(ctx, last-at, s.c.sched.line.stats); err != nil {
			return begun, err
		}
		var bytes int64
		k, bytes = s.expect(b, next, stop)
		begun += bytes
	}
	return begun, nil
}

// noRoom is why nothing can be kept.
func (c *Cache) noRoom() error { return &noRoomError{c.dir.Path()} }

type noRoomError struct{ dir string }

func (e *noRoomError) Error() string {
	return "cache directory " + e.dir + ": " + directory.ErrFull.Error()
}
func (e *noRoomError) Unwrap() error { return directory.ErrFull }

// expect begins a flight for the chunks from first on that are not under way by now, and
// returns where to go on, and how many bytes they are. It was admitted as far as end.
func (s *blobState) expect(b *Blob, first, end int64) (next, bytes int64) {
	at, _ := s.Bounds(first)
	_, stop := s.Bounds(end - 1)
	admitted := stop - at
	s.mu.Lock()
	defer s.mu.Unlock()
	for first < end && s.flights[first] != nil {
		first++
	}
	next = first
	for next < end && s.flights[next] == nil {
		next++
	}
	if next == first || s.closed {
		s.c.sched.expected.release(admitted, nil)
		return max(next, end), 0
	}
	at, _ = s.Bounds(first)
	_, stop = s.Bounds(next - 1)
	bytes = stop - at
	s.c.sched.expected.release(admitted-bytes, nil)
	s.c.sched.enter() // Fill waits for it, too
	f := s.start(context.Background(), b, first, next, expected)
	f.waiters++ // so that it does not end with a reader that leaves
	return next, bytes
}

// window returns how many bytes may be under way.
func (e *expectations) window(line LineStats) int64 {
	if line.Rate == 0 {
		return unknownExpected
	}
	return line.in(min(expectTrips*line.Trip+expectTime, expectMost), minExpected, maxExpected)
}

// request returns how many bytes the next request asks for. Requests that begin together
// would end together, and the line be idle for a round trip: the first is a short one.
func (e *expectations) request(line LineStats) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.flying == 0 {
		return e.window(line) / 4
	}
	return e.window(line) / 2
}

// admit waits until n bytes may be under way more, and counts them.
func (e *expectations) admit(ctx context.Context, n int64, line func() LineStats) error {
	for first := true; ; first = false {
		e.mu.Lock()
		if first && e.flying == 0 {
			e.err = nil // of long ago
		}
		room, err := e.window(line()), e.err
		e.err = nil
		if err == nil && (e.flying == 0 || e.flying+n <= room) {
			e.flying += n
			e.mu.Unlock()
			return nil
		}
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		changed := e.changed
		e.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// release says that n bytes are not under way any more, and with which error.
func (e *expectations) release(n int64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flying -= n
	if err != nil && !errors.Is(err, context.Canceled) {
		e.err = err
	}
	e.tell()
}

// tell wakes who waits. The caller holds mu.
func (e *expectations) tell() {
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// noteExpected notes that the chunks from first to end came from the source because they
// were expected to be read.
func (s *blobState) noteExpected(first, end int64) {
	for k := first; k < end; k++ {
		if bit := uint32(1) << (k % 32); s.count.expected[k/32].Or(bit)&bit == 0 {
			at, stop := s.Bounds(k)
			s.c.count.expected.Add(stop - at)
		}
	}
}

// metExpectation notes that somebody reads chunk k for the first time since it came. It counts
// once, also if the chunk comes again because it could not be kept.
func (s *blobState) metExpectation(k int64) {
	if bit := uint32(1) << (k % 32); s.count.expected[k/32].And(^bit)&bit != 0 {
		at, stop := s.Bounds(k)
		s.c.count.met.Add(stop - at)
	}
}

// Expected returns how many bytes of chunks were fetched for Expect, and how many of those
// somebody has read something of since.
func (c *Cache) Expected() (fetched, met int64) {
	return c.count.expected.Load(), c.count.met.Load()
}
