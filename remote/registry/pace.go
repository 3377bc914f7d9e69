package registry

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// slowest is how many bytes a second must come on average, in all requests
// of a client together: less counts as nothing. A line with so little to give
// carries an image of 30 MB in eight hours.
const slowest = 1 << 10

var (
	errStalled = errors.New("nothing came for too long")
	// errSlow is errStalled as well.
	errSlow = fmt.Errorf("%w: less than %d bytes a second count as nothing", errStalled, slowest)
	// errUntaken is errStalled as well.
	errUntaken = fmt.Errorf("%w: the server takes nothing of what is sent", errStalled)
)

// A pace tells progress from a trickle. The readers of a client share its line,
// so they share the bytes that have to come. It belongs to one goroutine.
type pace struct {
	active *atomic.Int64 // requests under way
	due    float64       // bytes that should have come since the last progress
	got    float64       // and those that came
	spent  time.Duration // since then
}

// add notes that n bytes came within d. It tells whether the bytes since the last
// progress are enough to be progress.
func (p *pace) add(n int, d time.Duration) bool {
	p.spent += d
	p.due += slowest * d.Seconds() / float64(max(p.active.Load(), 1))
	p.got += float64(n)
	if n == 0 || p.got < p.due {
		return false
	}
	p.due, p.got, p.spent = 0, 0, 0
	return true
}
