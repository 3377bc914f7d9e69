package registry

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/remote"
)

// mirrorTries is how often in a row a mirror may fail to answer while there is
// another place to ask.
const mirrorTries = 2

// A failover is one reader's way over the endpoints of a repository. It belongs
// to one goroutine.
type failover struct {
	repo    *Repository
	what    string // names the request in the log
	budget  *retryBudget
	resolve bool      // a tag is resolved, no content is read
	extra   bool      // what is wanted belongs to no image, and a mirror need not have it
	avoid   *endpoint // not asked while there is another
	rounds  int
}

// run calls f for one endpoint after another until it succeeds, or the last one
// has said its word. Mirrors that cool down are passed over; if the last
// endpoint could not be asked, mirrors that could not be asked either are asked
// again. The context that f gets holds the attempt, which has its own budget.
// The error is ctx.Err(), a *fault, or an error of Options.Sites.
func (w *failover) run(ctx context.Context, f func(context.Context, *endpoint) error) error {
	endpoints, err := w.repo.endpointsFor(ctx, w.resolve)
	if err != nil {
		return err
	}
	return w.budget.retry(ctx, w.what, func(ctx context.Context) error {
		w.rounds++
		last := len(endpoints) - 1
		cooldowns := &w.repo.client.cooldowns
		for i, e := range endpoints[:last] {
			if e == w.avoid || !cooldowns.admit(e, w.rounds > 1) {
				continue
			}
			begun := time.Now()
			err := w.mirrorBudget(last-i+1).retry(ctx, w.what, func(ctx context.Context) error { return f(ctx, e) })
			if err == nil {
				cooldowns.end(e, begun)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if flt := classify(err); !w.extra || flt.class != remote.ErrNotFound && flt.class != remote.ErrUnauthorized {
				cooldowns.begin(e, flt)
			}
		}
		err := f(ctx, endpoints[last])
		if err != nil && ctx.Err() == nil && last > 0 {
			return cooldowns.explain(classify(err), endpoints[:last], endpoints[last])
		}
		return err
	})
}

// mirrorBudget returns the budget for a mirror when left endpoints are left,
// itself included: its share of the time, and no more than a few seconds as
// long as the others have not failed.
func (w *failover) mirrorBudget(left int) *retryBudget {
	o := w.repo.client.opts
	p := newRetryBudget(o, false)
	p.parent, p.tries, p.received, p.hasty = w.budget, min(mirrorTries, o.Tries), w.budget.received, w.budget.hasty
	if end := w.budget.deadline(); !end.IsZero() {
		p.time = max(time.Until(end), 0) / time.Duration(left)
	}
	if w.rounds == 1 && (p.time < 0 || p.time > o.MirrorTimeout) {
		p.time = o.MirrorTimeout
	}
	return p
}

// endpointsFor returns the endpoints that may resolve the tag, or those that
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
