package registry

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A retryBudget decides how long one read or request goes on trying. It belongs
// to one goroutine.
type retryBudget struct {
	opts               *Options
	long               bool          // outlast outages
	hasty              bool          // an answer that comes to a halt has no more time than one that does not come
	time               time.Duration // without progress; negative: any
	tries              int           // of each kind
	parent             *retryBudget  // of the reader, if this is that with a mirror
	received           *atomic.Int64 // counts the bytes that come; nil: nobody counts
	since              time.Time
	pace               pace
	paced              time.Time // when pace was given bytes last
	got                int       // bytes since the last fault
	busy, odd, outages int
	backoff            time.Duration
	whole              bool // all of a blob was asked for in place of a range
}

func newRetryBudget(o *Options, long bool) *retryBudget {
	now := time.Now()
	return &retryBudget{opts: o, long: long, time: o.ReadTimeout, tries: o.Tries, since: now, paced: now,
		pace: pace{active: o.active}, backoff: o.MinBackoff}
}

// deadline is when to give up if nothing more comes; zero means never.
func (p *retryBudget) deadline() time.Time {
	if p.time < 0 {
		return time.Time{}
	}
	return p.since.Add(p.time)
}

// progress notes that n bytes came for the reader. A server that breaks after
// every few of them does not count as mended.
func (p *retryBudget) progress(n int) {
	const mended = 4 << 10
	p.alive(n)
	for ; p != nil && n > 0; p = p.parent {
		if p.got += n; p.got >= mended {
			p.busy, p.odd, p.outages, p.backoff = 0, 0, 0, p.opts.MinBackoff
		}
	}
}

// alive notes that the server sends n bytes, perhaps none for the reader yet.
// A trickle does not give the reader more time.
func (p *retryBudget) alive(n int) {
	for now := time.Now(); p != nil; p = p.parent {
		if p.pace.add(n, now.Sub(p.paced)) {
			p.since = now
		}
		p.paced = now
	}
}

// lastOdd tells whether another odd fault is the last one.
func (p *retryBudget) lastOdd() bool {
	return p == nil || p.parent != nil || p.odd+1 >= min(oddTries, p.tries)
}

// lastBusy tells whether another failure to answer is the last one, or as late as it
// is by default.
func (p *retryBudget) lastBusy() bool { return p != nil && p.busy+1 == min(p.tries, defaultTries) }

// next returns how long to wait after a fault before trying again.
func (p *retryBudget) next(v verdict) (time.Duration, bool) {
	p.got = 0
	again := false
	switch v {
	case busy:
		p.busy++
		again = p.busy < p.tries
	case odd:
		p.odd++
		again = p.parent == nil && p.odd < min(oddTries, p.tries)
	case outage:
		p.outages++
		again = p.long || p.parent == nil && p.outages < min(outageTries, p.tries)
	}
	wait := p.backoff/2 + rand.N(p.backoff)
	p.backoff = min(2*p.backoff, p.opts.MaxBackoff)
	if end := p.deadline(); !end.IsZero() && time.Now().Add(wait).After(end) {
		again = false
	}
	return wait, again
}

// retry calls f until it succeeds or fails for good. The error is ctx.Err()
// or a *fault. The text what names the request in the log.
func (p *retryBudget) retry(ctx context.Context, what string, f func(context.Context) error) error {
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a := &attempt{budget: p}
		err := f(context.WithValue(ctx, attemptKey{}, a))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		flt := a.explain(classify(err))
		wait, again := p.next(flt.verdict)
		if !again {
			if h := a.host.Load(); h != nil && p.long && NoAnswer(flt) {
				h.health.gaveUp()
			}
			return flt
		}
		p.opts.Logf("%s: %v; asking again in %s", what, flt, wait.Round(time.Millisecond))
		if sleep(ctx, wait) != nil {
			return ctx.Err()
		}
	}
}

// An attempt holds the state of one try of a request, wherever the request
// passes. It travels in the context, because oras-go stands in between. All
// but host belongs to one goroutine.
type attempt struct {
	budget  *retryBudget         // nil: endless
	sent    *authorization       // what it was last sent with; nil: nothing
	fresh   bool                 // what is shown was got during this attempt
	spent   bool                 // all that there is was shown, and refused to HEAD
	said    string               // what the last answer said that was no success
	without map[*endpoint]login  // those that have no credential
	probe   bool                 // a HEAD that is refused is followed by a GET, whose answer counts
	host    atomic.Pointer[host] // that was asked last
}

type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt {
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		return a
	}
	return new(attempt)
}

// stallTime is how long the body of an answer may bring nothing.
func (a *attempt) stallTime(o *Options) time.Duration {
	if a.budget != nil && a.budget.hasty {
		return min(o.StallTimeout, a.budget.time)
	}
	return o.StallTimeout
}

// bodyTime is how long the body of an answer may go without progress; negative
// is for ever. A mirror has a share of the reader's time, but may be silent as
// long as any server.
func (a *attempt) bodyTime(o *Options) time.Duration {
	if a.budget != nil && a.budget.hasty {
		return a.budget.time
	}
	if a.budget == nil || o.ReadTimeout < 0 {
		return o.ReadTimeout
	}
	return min(o.ReadTimeout, max(a.budget.time, 2*o.StallTimeout))
}

// deadline is when the reader gives up; zero means never.
func (a *attempt) deadline() time.Time {
	if a.budget == nil {
		return time.Time{}
	}
	return a.budget.deadline()
}
