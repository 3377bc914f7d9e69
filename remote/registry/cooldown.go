package registry

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote"
)

// cooldowns are the mirrors that failed and are not asked for some minutes. It
// is safe for concurrent use.
type cooldowns struct {
	opts *Options

	mu      sync.Mutex
	byPlace map[string]*cooldown
}

// A cooldown says why and how long a mirror is not asked.
type cooldown struct {
	begun, until time.Time
	fault        *fault
}

// places returns the server as a whole, and the repository there.
func (e *endpoint) places() (server, repository string) {
	server = e.Host + e.Path
	return server, server + "/" + e.Ref.Repository
}

// admit tells whether to ask a mirror. When its cooldown is over one reader asks
// it, and the others pass it over until the answer is there. A desperate reader
// also asks mirrors that cool down because they did not answer.
func (s *cooldowns) admit(e *endpoint, desperate bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	server, repository := e.places()
	for _, place := range []string{server, repository} {
		r := s.byPlace[place]
		switch {
		case r == nil, desperate && errors.Is(r.fault, remote.ErrUnavailable):
		case now.Before(r.until):
			return false
		default:
			r.until = now.Add(s.opts.MirrorTimeout)
		}
	}
	return true
}

// begin begins a cooldown: of the repository if the mirror does not have or does
// not give something, and else of the server.
func (s *cooldowns) begin(e *endpoint, f *fault) {
	server, place := e.places()
	if !errors.Is(f, remote.ErrNotFound) && !errors.Is(f, remote.ErrUnauthorized) {
		place = server
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byPlace[place] == nil {
		s.opts.Logf("mirror %s of %s: %v; it is not asked for %s", place, e.original, f, s.opts.MirrorCooldown)
	}
	now := time.Now()
	s.byPlace[place] = &cooldown{begun: now, until: now.Add(s.opts.MirrorCooldown), fault: f}
}

// end ends cooldowns of a mirror that rightly answered a request of a time, if
// they began before.
func (s *cooldowns) end(e *endpoint, asked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	server, repository := e.places()
	for _, place := range []string{server, repository} {
		if r := s.byPlace[place]; r != nil && r.begun.Before(asked) {
			delete(s.byPlace, place)
			s.opts.Logf("mirror %s answers again", place)
		}
	}
}

// explain adds to the fault of the last endpoint why the mirrors before it
// were of no use.
func (s *cooldowns) explain(f *fault, mirrors []*endpoint, last *endpoint) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := *f.by(last.Host)
	for _, e := range mirrors {
		server, repository := e.places()
		for _, place := range []string{server, repository} {
			if r := s.byPlace[place]; r != nil {
				own := *r.fault
				if own.who == e.speaker(nil) {
					own.who = ""
				}
				said.text += fmt.Sprintf("; mirror %s: %v", e.Host, &own)
			}
		}
	}
	return &said
}
