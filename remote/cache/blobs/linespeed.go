package blobs

import (
	"sync"
	"time"
)

const (
	// A rate is taken over at least rateBytes, because what is less lies in
	// buffers on the way, and at most about rateTime.
	rateBytes = 256 << 10
	rateTime  = 200 * time.Millisecond
	// A request takes at most requestTime of the line, or requestTrips round
	// trips where these are longer, so that who comes next gets a turn; it is
	// never bound to less than leastRequest.
	requestTime, requestTrips = time.Second, 4
	leastRequest              = 256 << 10
	// Prefetch has twice as much under way as a request may ask for, and at
	// least leastAhead.
	leastAhead = 512 << 10
	// Fill asks for what takes fillTime of the line.
	fillTime = 40 * time.Millisecond
)

// A lineSpeed is what has been measured of the way to the sources of a Cache. The
// zero value is one of which nothing is known.
type lineSpeed struct {
	mu   sync.Mutex
	trip time.Duration // from a request to its first byte; 0: not known
	rate float64       // bytes a second of all requests together; 0: not known

	// The sample that is being taken, while answers are coming.
	coming int
	since  time.Time
	bytes  int64
}

// A LineStats is what has been measured of the way to the sources.
type LineStats struct {
	// Trip is how long a request takes to its first byte, about the shortest
	// lately; 0 while it is not known.
	Trip time.Duration
	// Rate is how many bytes a second come, of all requests together, while
	// any do; 0 while it is not known.
	Rate float64
}

func (g *lineSpeed) stats() LineStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return LineStats{Trip: g.trip, Rate: g.rate}
}

// answered says that a request has got its first byte after a time. What it
// brings from now on counts, until ended.
func (g *lineSpeed) answered(after time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.trip == 0 || after < g.trip:
		g.trip = max(after, 1) // who waits longer has waited for others, too
	default:
		g.trip += (after - g.trip) / 16
	}
	if g.coming++; g.coming == 1 {
		g.since, g.bytes = time.Now(), 0
	}
}

// came says that bytes have come.
func (g *lineSpeed) came(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes += n
	now := time.Now()
	if now.Sub(g.since) >= rateTime && g.bytes >= rateBytes {
		g.sample(now)
	}
}

// ended says that an answer is over.
func (g *lineSpeed) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.coming--; g.coming == 0 && g.bytes >= rateBytes {
		g.sample(time.Now())
	}
}

// A measure follows one request for a lineSpeed.
type measure struct {
	line  *lineSpeed
	began time.Time
	n     int64 // bytes that have come
}

// arrived says that the first n bytes have come. Those that the first call
// brings came before the clock was started, and do not count.
func (m *measure) arrived(n int64) {
	switch {
	case n == m.n:
	case m.n == 0:
		m.line.answered(time.Since(m.began))
	default:
		m.line.came(n - m.n)
	}
	m.n = n
}

// end says that the request is over.
func (m *measure) end() {
	if m.n > 0 {
		m.line.ended()
	}
}

// sample takes down the rate since the last time. The caller holds mu.
func (g *lineSpeed) sample(now time.Time) {
	if took := now.Sub(g.since); took > 0 {
		rate := float64(g.bytes) / took.Seconds()
		if g.rate == 0 {
			g.rate = rate
		} else {
			g.rate += (rate - g.rate) / 4
		}
	}
	g.since, g.bytes = now, 0
}

// in returns how many bytes the line brings in a time, at least least and at
// most most, and most while the rate is not known.
func (s LineStats) in(t time.Duration, least, most int64) int64 {
	if s.Rate == 0 {
		return most
	}
	return max(min(least, most), int64(min(s.Rate*t.Seconds(), float64(most))))
}

// request returns how many bytes a request may ask for, of at most most.
func (s LineStats) request(most int64) int64 {
	return s.in(max(requestTime, requestTrips*s.Trip), leastRequest, most)
}

// ahead returns how many bytes Prefetch may have under way, of at most most.
func (s LineStats) ahead(most int64) int64 {
	return s.in(2*max(requestTime, requestTrips*s.Trip), leastAhead, most)
}

// aheadRequests returns in how many requests. It takes more than the usual few
// to keep a line busy that is fast and long.
func (s LineStats) aheadRequests() int {
	const usual = 1 << 20 // bytes of one
	busy := int(2*s.Rate*s.Trip.Seconds()/usual) + 1
	return min(max(minAheadRequests, busy), maxAheadRequests)
}

// fill returns how many bytes Fill may ask for at once.
func (s LineStats) fill(chunk int64) int64 {
	if s.Rate == 0 {
		return fillRequest
	}
	return s.in(fillTime, chunk, maxFillRequest)
}
