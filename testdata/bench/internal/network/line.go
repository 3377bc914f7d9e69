package network

import (
	"context"
	"sync"
	"time"
)

// A line lies between a client and a registry: each request takes a
// round trip before its answer begins, and all answers share the bandwidth.
// It is safe for concurrent use.
type line struct {
	mu    sync.Mutex
	delay time.Duration
	rate  float64   // bytes a second; 0 is no bound
	free  time.Time // when the bytes that have been let on will be through
}

// maxCredit is how much of the time that the line was free can be made up
// for: sleeping is never exact, and the excess of one sleep would be lost.
const maxCredit = 5 * time.Millisecond

// set changes the line for all later requests.
func (l *line) set(delay time.Duration, rate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay, l.rate = delay, rate
}

// roundTrip waits as long as a request and the beginning of its answer take.
func (l *line) roundTrip(ctx context.Context) error {
	l.mu.Lock()
	delay := l.delay
	l.mu.Unlock()
	return sleep(ctx, delay)
}

// limited reports whether the bandwidth has a bound.
func (l *line) limited() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate > 0
}

// pass waits until n bytes are through. All connections share one queue.
func (l *line) pass(ctx context.Context, n int) error {
	return sleep(ctx, l.reserve(n, time.Now()))
}

// reserve lets n bytes on the line and returns how long they take from now.
func (l *line) reserve(n int, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return 0
	}
	if earliest := now.Add(-maxCredit); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free.Sub(now)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
