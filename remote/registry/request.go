package registry

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

// maxRedirects is how many redirects in a row are followed.
const maxRedirects = 5

// The actions that a token may be needed for.
const (
	actionPull   = auth.ActionPull
	actionPush   = auth.ActionPush
	actionDelete = auth.ActionDelete
)

// A request is a question or a change, wherever it is sent.
type request struct {
	method  string
	header  http.Header
	actions []string // on the repository, which a token must allow
	payload *payload // nil: none

	// resumes says of a PATCH that the server is asked how far it got before the
	// next is sent.
	resumes bool
}

// get is the request for something that is only read.
func get(header http.Header) *request {
	return &request{method: http.MethodGet, header: header, actions: []string{actionPull}}
}

// reads tells whether the request changes nothing.
func (r *request) reads() bool { return r.method == http.MethodGet || r.method == http.MethodHead }

// repeatable tells whether the request may be sent again when nobody knows
// whether it was done. Of what is sent here a PUT puts content, under its digest or
// a tag that is meant to name it, and a POST begins an upload: to do it twice does
// what doing it once does.
func (r *request) repeatable() bool {
	switch r.method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		return true
	case http.MethodPut, http.MethodPost:
		return r.payload.replays()
	case http.MethodPatch:
		return r.resumes && r.payload.replays()
	}
	return false
}

// mayBeExpired tells whether a status can mean that the token has expired: ECR
// answers 403 then and ECR Public 400. A request with a payload may get 400 for
// its payload.
func (r *request) mayBeExpired(status int) bool {
	return status == http.StatusForbidden || status == http.StatusBadRequest && r.payload == nil
}

// settle makes a fault final if the request must not be sent again. A request
// that reached nobody or was refused because there are too many may be.
func (r *request) settle(f *fault) *fault {
	switch {
	case r.reads(), f.verdict == final:
		return f
	case f.verdict == odd && f.status != 0: // the server understood it, and will not change its mind
	case r.repeatable(), f.undone() && r.payload.replays():
		return f
	}
	settled := *f
	settled.verdict = final
	return &settled
}

// ask sends a request, following redirects, and returns the answer and where
// it came from, or with an error where it was sent last. Its Body is a *liveBody: it ends if ctx does, and when it
// brings nothing for the time that Options allow.
func (e *endpoint) ask(ctx context.Context, req *request, from *location) (*http.Response, *location, error) {
	attempt := attemptOf(ctx)
	live, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	wait := time.Duration(math.MaxInt64)
	if deadline := attempt.deadline(); !deadline.IsZero() {
		wait = time.Until(deadline)
	}
	o := e.client.opts
	s := &sending{stall: o.StallTimeout, wait: o.ReadTimeout, late: func() { cancel(errUntaken) }}
	body := &liveBody{stall: attempt.stallTime(o), most: attempt.bodyTime(o), pace: pace{active: o.active},
		cancel: cancel, unlink: unlink, cause: func() error { return context.Cause(live) }}
	if attempt.budget != nil {
		body.received = attempt.budget.received
	}
	body.watch = time.AfterFunc(wait, func() {
		if !s.begun() { // else s watches
			body.late()
		}
	})
	resp, at, leads, err := e.follow(live, req, from, s)
	body.watch.Stop()
	attempt.budget.alive(int(s.end()))
	if err != nil {
		if failure := req.payload.failure(); failure != nil {
			err = failure
		}
		err = e.blame(body.explain(err), at, attempt.said)
		body.end()
		return nil, at, err
	}
	body.body, body.host, body.leads, resp.Body = resp.Body, at.url.Host, leads, body
	return resp, at, nil
}

// follow sends a request and follows redirects. The registry's credential
// goes to the registry alone, and not any more once a redirect has left it.
// leads is how near the servers may be that the answer leads to. The location is
// the last one that was asked, also with an error.
func (e *endpoint) follow(ctx context.Context, req *request, at *location, s *sending) (_ *http.Response, _ *location, leads address.Reach, _ error) {
	for hop := 0; ; hop++ {
		r := &route{limit: at.limit, named: at.named}
		resp, err := e.send(context.WithValue(ctx, routeKey{}, r), req, at, s)
		if err != nil {
			return nil, at, 0, err
		}
		leads = min(r.limit, r.from)
		switch resp.StatusCode {
		case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
			if !req.reads() { // they mean that it is done, or are taken to mean it
				drain(resp.Body)
				return nil, at, 0, &fault{class: remote.ErrUnavailable, status: resp.StatusCode,
					text: fmt.Sprintf("%s answers %s with the redirect %d, which is for what is read", at.url.Host, req.method, resp.StatusCode)}
			}
		default:
			return resp, at, leads, nil
		}
		drain(resp.Body)
		if hop == maxRedirects {
			return nil, at, 0, oddf("%s redirects more than %d times", e.Host, maxRedirects)
		}
		if !req.payload.replays() {
			return nil, at, 0, &fault{class: remote.ErrUnavailable, text: at.url.Host + " redirects to elsewhere, and " + errOnce.Error()}
		}
		next, err := e.next(at, resp, leads)
		if err != nil {
			f := *classify(err)
			f.led = true
			return nil, at, 0, &f
		}
		at = next
	}
}

// next returns where an answer of at sends us; see location.redirect.
func (e *endpoint) next(at *location, resp *http.Response, limit address.Reach) (*location, error) {
	plain := func(u *url.URL) bool { return e.plain(resp.Request.Context(), u) }
	next, err := at.redirect(resp, limit, plain, e.client.opts)
	if err != nil {
		return nil, e.atFault(err)
	}
	next.named = e.named(next.url)
	return next, nil
}

// send sends one request to one place.
func (e *endpoint) send(ctx context.Context, r *request, at *location, s *sending) (*http.Response, error) {
	build := func() (*http.Request, error) {
		req, err := e.newRequest(ctx, r.method, at, r.header)
		if err == nil {
			r.payload.attach(req, s)
		}
		return req, err
	}
	if at.home && e.Header.Get("Authorization") == "" {
		return e.visit(ctx, r, build)
	}
	attemptOf(ctx).sent = nil
	req, err := build()
	if err != nil {
		return nil, err
	}
	return e.RoundTrip(req)
}

// newRequest returns a request without what authorises it. The headers that
// configuration has for the endpoint go to no other server.
func (e *endpoint) newRequest(ctx context.Context, method string, at *location, header http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.url.String(), nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header.Clone())
	if e.client.manners.rangeless(at.url.Host) {
		req.Header.Del("Range")
	}
	req.Header.Set("User-Agent", e.client.opts.UserAgent)
	if at.home {
		for name, values := range e.Header {
			req.Header[name] = slices.Clone(values)
		}
	}
	return req, nil
}
