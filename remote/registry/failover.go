package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote"
)

// mirrorTries is how often in a row a mirror may fail to answer while there is
// another place to ask.
const mirrorTries = 2

// A walk is one reader's way over the endpoints of a repository. It belongs
// to one goroutine.
type walk struct {
	repo     *Repository
	what     string // names the request in the log
	patience *patience
	resolve  bool      // what a tag is is asked, and not for content
	avoid    *endpoint // not asked while there is another
	rounds   int
}

// run calls f for one endpoint after another until it succeeds, or the last
// one has said its word. Mirrors that rest are passed over; if the last
// endpoint could not be asked, those are asked again that could not either.
// The context that f gets holds the attempt, which has its own patience. The
// error is ctx.Err() or a *fault.
func (w *walk) run(ctx context.Context, f func(context.Context, *endpoint) error) error {
	endpoints, err := w.repo.endpointsFor(ctx, w.resolve)
	if err != nil {
		return err
	}
	return w.patience.retry(ctx, w.what, func(ctx context.Context) error {
		w.rounds++
		last := len(endpoints) - 1
		rests := &w.repo.client.rests
		for i, e := range endpoints[:last] {
			if e == w.avoid || !rests.admit(e, w.rounds > 1) {
				continue
			}
			begun := time.Now()
			err := w.mirrorPatience(last-i+1).retry(ctx, w.what, func(ctx context.Context) error { return f(ctx, e) })
			if err == nil {
				rests.end(e, begun)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rests.begin(e, classify(err))
		}
		err := f(ctx, endpoints[last])
		if err != nil && ctx.Err() == nil && last > 0 {
			return rests.explain(classify(err), endpoints[:last])
		}
		return err
	})
}

// mirrorPatience is that with a mirror when left endpoints are left, with it:
// it gets its share of the time, and not more than a few seconds as long as
// others have not failed.
func (w *walk) mirrorPatience(left int) *patience {
	o := w.repo.client.opts
	p := newPatience(o, false)
	p.parent, p.tries = w.patience, min(mirrorTries, o.Tries)
	if end := w.patience.deadline(); !end.IsZero() {
		p.time = max(time.Until(end), 0) / time.Duration(left)
	}
	if w.rounds == 1 && (p.time < 0 || p.time > o.MirrorTimeout) {
		p.time = o.MirrorTimeout
	}
	return p
}

// endpointsFor returns the endpoints that may say what the tag is, or that
// may be asked for content.
func (r *Repository) endpointsFor(ctx context.Context, resolve bool) ([]*endpoint, error) {
	all, err := r.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	var able []*endpoint
	for _, e := range all {
		if resolve && e.Resolve || !resolve && e.Pull {
			able = append(able, e)
		}
	}
	switch {
	case len(able) > 0:
		return able, nil
	case resolve:
		return nil, errNoResolver
	}
	return nil, errNoServer
}

// rests are the mirrors that failed, and are not asked for some minutes. It
// is safe for concurrent use.
type rests struct {
	opts *Options

	mu      sync.Mutex
	byPlace map[string]*rest
}

// A rest is why and how long a mirror is not asked.
type rest struct {
	begun, until time.Time
	fault        *fault
}

// places returns the server as a whole, and the repository there.
func (e *endpoint) places() (server, repository string) {
	server = e.Host + e.Path
	return server, server + "/" + e.Ref.Repository
}

// admit tells whether to ask a mirror. When its time is over one reader asks
// it, and the others go on passing it over until the answer is there.
// desperate readers ask also those that rest because they did not answer.
func (s *rests) admit(e *endpoint, desperate bool) bool {
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

// begin has a mirror rest: what it does not have or does not give concerns
// the repository, all else the server.
func (s *rests) begin(e *endpoint, f *fault) {
	server, place := e.places()
	if !errors.Is(f, remote.ErrNotFound) && !errors.Is(f, remote.ErrUnauthorized) {
		place = server
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byPlace[place] == nil {
		s.opts.Logf("mirror %s of %s: %v; it is not asked for %s", place, e.original, f, s.opts.MirrorRest)
	}
	now := time.Now()
	s.byPlace[place] = &rest{begun: now, until: now.Add(s.opts.MirrorRest), fault: f}
}

// end notes that a mirror answered rightly to what was asked at a time.
func (s *rests) end(e *endpoint, asked time.Time) {
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
func (s *rests) explain(f *fault, mirrors []*endpoint) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := *f
	for _, e := range mirrors {
		server, repository := e.places()
		for _, place := range []string{server, repository} {
			if r := s.byPlace[place]; r != nil {
				said.text += fmt.Sprintf("; mirror %s: %v", e.Host, r.fault)
			}
		}
	}
	return &said
}
