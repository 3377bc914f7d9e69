package registry

import (
	"context"
	"math"
	"net/http"
	"time"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxRedirects is how many redirects in a row are followed.
const maxRedirects = 5

// ask sends a request, following redirects, and returns the answer and where
// it came from. Its Body is a *liveBody: it ends if ctx does, and when it
// brings nothing for the time that Options allow.
func (e *endpoint) ask(ctx context.Context, method string, from *location, header http.Header) (*http.Response, *location, error) {
	ctx = auth.AppendRepositoryScope(ctx, registry.Reference{Registry: e.Host, Repository: e.Ref.Repository}, auth.ActionPull)
	live, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	wait := time.Duration(math.MaxInt64)
	if deadline := attemptOf(ctx).deadline(); !deadline.IsZero() {
		wait = time.Until(deadline)
	}
	o := e.client.opts
	body := &liveBody{stall: o.StallTimeout, most: attemptOf(ctx).bodyTime(o), pace: pace{active: o.active},
		cancel: cancel, unlink: unlink, cause: func() error { return context.Cause(live) }}
	body.watch = time.AfterFunc(wait, body.late)
	resp, at, err := e.follow(live, method, from, header)
	body.watch.Stop()
	if err != nil {
		err = body.explain(err)
		body.end()
		return nil, nil, err
	}
	body.body, resp.Body = resp.Body, body
	return resp, at, nil
}

// follow sends a request and follows redirects. The registry's credential
// goes to the registry alone, and not any more once a redirect has left it.
func (e *endpoint) follow(ctx context.Context, method string, at *location, header http.Header) (*http.Response, *location, error) {
	for hop := 0; ; hop++ {
		r := &route{limit: at.limit, named: at.named}
		resp, err := e.send(context.WithValue(ctx, routeKey{}, r), method, at, header)
		if err != nil {
			return nil, nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, at, nil
		}
		drain(resp.Body)
		if hop == maxRedirects {
			return nil, nil, oddf("%s redirects more than %d times", e.Host, maxRedirects)
		}
		if at, err = at.redirect(resp, min(r.limit, r.from), e.client.opts); err != nil {
			return nil, nil, err
		}
		at.named = e.named(at.url)
	}
}

// send sends one request to one place.
func (e *endpoint) send(ctx context.Context, method string, at *location, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	if !at.home {
		req.Header.Set("User-Agent", e.client.opts.UserAgent)
		return e.RoundTrip(req)
	}
	for name, values := range e.Header {
		req.Header[name] = values
	}
	resp, err := e.auth.Do(req)
	if err != nil || resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusForbidden {
		return resp, err
	}
	// ECR answers 403 and ECR Public 400 when a token has expired.
	if !e.tokens.forget(ctx) {
		return resp, nil
	}
	drain(resp.Body)
	return e.auth.Do(req)
}
