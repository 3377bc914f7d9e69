package registry

import (
	"context"
	"net/http"
	"slices"

	"github.com/imgfs/imgfs/remote"
)

// write tries something that changes the repository: at its own registry
// alone, never at a mirror.
func (r *Repository) write(ctx context.Context, what string, f func(context.Context, *endpoint) error) error {
	e, err := r.origin(ctx)
	if err == nil {
		err = newRetryBudget(r.client.opts, false).retry(ctx, what, func(ctx context.Context) error { return f(ctx, e) })
	}
	if err != nil {
		return wrap(what, r.pushFault(err))
	}
	return nil
}

// origin returns the endpoint that is written to.
func (r *Repository) origin(ctx context.Context) (*endpoint, error) {
	all, err := r.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	if last := all[len(all)-1]; last.Push {
		return last, nil
	}
	return nil, errNoWriter
}

// change sends a request that changes something. An answer with another
// status than those of want is a fault, which is final unless the request may
// be sent again.
func (e *endpoint) change(ctx context.Context, req *request, to *location, want ...int) (*http.Response, *location, error) {
	resp, at, err := e.ask(ctx, req, to)
	if err != nil {
		return nil, nil, req.settle(classify(err))
	}
	if slices.Contains(want, resp.StatusCode) {
		return resp, at, nil
	}
	f := e.refusal(resp, at)
	drain(resp.Body)
	if f.class == remote.ErrUnauthorized && !at.home {
		// Storage knows only the signature; the registry knows its users.
		f.class = remote.ErrUnavailable
	}
	return nil, nil, req.settle(f)
}

// resourceOf returns a location to go on at that an answer names, such as
// that of an upload.
func (e *endpoint) resourceOf(resp *http.Response, at *location) (*location, error) {
	next, err := e.next(at, resp, resp.Body.(*liveBody).leads)
	if err != nil {
		return nil, err
	}
	next.expires = at.expires
	return next, nil
}
