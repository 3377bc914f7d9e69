package serve

import (
	"slices"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/registry"
)

// Servers are the registries that a mount reads from, and the servers that these
// send their readers to: which of them are down. The zero value knows of none. Its
// methods may be called by several goroutines at a time.
type Servers struct {
	mu     sync.Mutex
	health func() []registry.HostState      // nil: no registry is asked
	logf   func(format string, args ...any) // nil: nobody listens
}

// Watch sets the source of the servers' states: Health of a registry client.
func (s *Servers) Watch(health func() []registry.HostState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health = health
}

// Changed logs that a server is down, or is up again. It is for
// registry.Options.StateChanged.
func (s *Servers) Changed(host string, up bool, reason string) {
	s.mu.Lock()
	logf := s.logf
	s.mu.Unlock()
	switch {
	case logf == nil:
	case up:
		logf("registry %s: it answers again", host)
	default:
		logf("registry %s: down: %s", host, reason)
	}
}

// logTo logs which servers are down, and each change from now on.
func (s *Servers) logTo(logf func(format string, args ...any)) {
	s.mu.Lock()
	s.logf = logf
	s.mu.Unlock()
	for _, h := range s.states() {
		if h.Down {
			s.Changed(h.Host, false, h.Reason)
		}
	}
}

// alreadyReported is for fusefs.Options.AlreadyReported: that a server is down has
// been logged.
func (s *Servers) alreadyReported(err error) bool {
	return registry.NoAnswer(err) && slices.ContainsFunc(s.states(), func(h ServerState) bool { return h.Down })
}

// states returns the state of each server, those first that are down.
func (s *Servers) states() []ServerState {
	s.mu.Lock()
	health := s.health
	s.mu.Unlock()
	states := []ServerState{}
	if health == nil {
		return states
	}
	for _, down := range []bool{true, false} {
		for _, h := range health() {
			if h.Down == down {
				states = append(states, ServerState{h.Host, h.Down, h.Since.UTC().Truncate(time.Second), h.Reason})
			}
		}
	}
	return states
}
