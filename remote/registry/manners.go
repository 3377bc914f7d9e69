package registry

import (
	"strings"
	"sync"
	"time"
)

// manners are what servers were found not to serve. It is safe for concurrent
// use.
type manners struct {
	mu     sync.Mutex
	byHost map[string]manner
}

// A manner is that of one server. The zero manner is that of one of which
// nothing is known.
type manner struct {
	headless  bool          // it refuses HEAD, and serves GET
	ranged    bool          // it has served a range
	rangeless time.Time     // it is not asked for ranges before
	rest      time.Duration // that it was last not asked for ranges
}

// maxManners is how many servers are remembered: a registry can redirect to ever
// new names.
const maxManners = 256

func (m *manners) of(host string) manner {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byHost[strings.ToLower(host)]
}

func (m *manners) note(host string, change func(*manner)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host = strings.ToLower(host)
	one, known := m.byHost[host]
	if m.byHost == nil || !known && len(m.byHost) >= maxManners {
		m.byHost = make(map[string]manner)
	}
	change(&one)
	m.byHost[host] = one
}

// headless reports whether a server refuses HEAD.
func (m *manners) headless(host string) bool { return m.of(host).headless }

func (m *manners) noteHeadless(host string) {
	m.note(host, func(one *manner) { one.headless = true })
}

// ranged reports whether a server has served a range lately.
func (m *manners) ranged(host string) bool { return m.of(host).ranged }

// noteRanged notes that a server served a range.
func (m *manners) noteRanged(host string) {
	if !m.of(host).ranged {
		m.note(host, func(one *manner) { one.ranged = true })
	}
}

// rangeless reports whether a server is not to be asked for ranges.
func (m *manners) rangeless(host string) bool { return time.Now().Before(m.of(host).rangeless) }

// hiccups is how many times a server that has served ranges may refuse them, with
// a rest that doubles, until it rests as long as one that never has: 10 s of 5 min
// are the first.
const hiccups = 5

// noteRangeless notes that a server refused a range and served the whole blob. It
// is not to be asked for ranges for a time, at most for as long as most says: it may
// have been a mistake.
func (m *manners) noteRangeless(host string, most time.Duration) {
	m.note(host, func(one *manner) {
		now := time.Now()
		switch {
		case now.Before(one.rangeless): // others found it out at the same time
			return
		case !one.ranged:
			one.rest = most
		case now.Sub(one.rangeless) > most:
			one.rest = most >> hiccups
		default:
			one.rest = min(most, 2*one.rest)
		}
		one.ranged, one.rangeless = false, now.Add(one.rest)
	})
}
