package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// A visit is one request to the endpoint itself, which is sent again with what the
// server wants to be shown. Nothing is shown before it was asked for, but what was
// got for the same scopes before. It belongs to one goroutine.
type visit struct {
	e       *endpoint
	attempt *attempt
	request *request
	build   func() (*http.Request, error)
	scopes  []string // that are expected to be needed
	key     string   // scopes, as tokens are kept by
	n       int      // how often it was sent
}

// visit sends a request, which build makes, until the server takes it or all is
// shown that there is. The answer may be a refusal.
func (e *endpoint) visit(ctx context.Context, r *request, build func() (*http.Request, error)) (*http.Response, error) {
	v := &visit{e: e, attempt: attemptOf(ctx), request: r, build: build, scopes: auth.CleanScopes([]string{auth.ScopeRepository(e.Ref.Repository, r.actions...)})}
	v.key = strings.Join(v.scopes, " ")
	sent := e.tokens.get(v.key)
	resp, err := v.send(sent)
	if err != nil || !refused(resp.StatusCode) {
		return resp, err
	}
	if sent != nil && v.attempt.spent {
		detach(resp)
		return v.accept(ctx, resp, v.lacking(resp, sent))
	}
	if sent != nil && v.mayBeExpired(resp, sent) {
		if !r.payload.replays() || !e.tokens.forget(v.attempt) {
			return resp, nil
		}
		drain(resp.Body)
		sent = nil
		if resp, err = v.send(nil); err != nil || !refused(resp.StatusCode) {
			return resp, err
		}
	}
	detach(resp)
	offers, err := v.offers(ctx, resp, sent)
	if err != nil {
		return nil, err
	}
	return v.accept(ctx, resp, offers)
}

// detach reads the body of an answer that is no content, so that its request is
// over: the next one may have to wait for its slot.
func detach(resp *http.Response) {
	const most, wait = 16 << 10, time.Second
	body := resp.Body
	timer := time.AfterFunc(wait, func() { body.Close() })
	data, _ := io.ReadAll(io.LimitReader(body, most)) // what does not come is not told
	timer.Stop()
	body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(data))
}

// refused tells whether a status can mean that the server wants to be shown
// something, or something else. Some hide what they have from strangers.
func refused(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusBadRequest:
		return true
	}
	return false
}

// send sends the request with what a names; nil is nothing.
func (v *visit) send(a *authorization) (*http.Response, error) {
	if v.n++; v.n > 1 && !v.request.payload.replays() {
		return nil, errOnce
	}
	req, err := v.build()
	if err != nil {
		return nil, err
	}
	if a != nil {
		req.Header.Set("Authorization", a.header)
	}
	v.attempt.sent = a
	resp, err := v.e.RoundTrip(req)
	if err == nil && a != nil {
		if refused(resp.StatusCode) {
			v.e.tokens.refused(a)
		} else {
			v.e.tell(a)
		}
	}
	return resp, err
}

// mayBeExpired tells whether an answer can mean that what was sent has expired.
// Those that say so themselves have a challenge.
func (v *visit) mayBeExpired(resp *http.Response, sent *authorization) bool {
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return len(usable(challenges(resp.Header))) == 0
	case http.StatusNotFound:
		return sent.over()
	case http.StatusForbidden:
		return len(v.lacking(resp, sent)) == 0
	}
	return v.request.mayBeExpired(resp.StatusCode)
}

// offers returns the ways to log in that an answer has, or that the server has
// where it begins if it hides what it has. None: the answer is the last word.
func (v *visit) offers(ctx context.Context, resp *http.Response, sent *authorization) ([]challenge, error) {
	named := challenges(resp.Header)
	offers, denied := usable(named), resp.StatusCode == http.StatusUnauthorized
	switch {
	case resp.StatusCode == http.StatusForbidden && sent != nil:
		return v.lacking(resp, sent), nil
	case sent != nil && !denied:
		return nil, nil
	case sent != nil, len(offers) > 0:
		return offers, nil
	case denied:
		offers = v.e.asked(ctx)
		if len(offers) == 0 && len(named) > 0 {
			return nil, &fault{class: ErrUnknownLogin, unmet: true, text: fmt.Sprintf("%s wants a login by %s, and imgfs has only Basic and Bearer",
				v.e.Host, scrub.Text(strings.Join(schemes(named), ", ")))}
		}
		return offers, nil
	case !v.request.reads():
		return nil, nil
	}
	// Whoever hides what he has does not ask a stranger in.
	l, err := v.lookUp(ctx)
	if err != nil {
		return nil, err
	}
	if l.cred.Empty() {
		v.attempt.sent = &authorization{trouble: l.trouble, loud: l.loud}
		return nil, nil
	}
	return v.e.asked(ctx), nil
}

// lookUp looks up the credential when nobody else gets a token. That there is none
// is believed for some seconds: a registry is asked several things about what it
// does not have, and a helper can take its time.
func (v *visit) lookUp(ctx context.Context) (login, error) {
	t := v.e.tokens
	if err := t.fetching.lock(ctx); err != nil {
		return login{}, err
	}
	defer t.fetching.unlock()
	if time.Since(t.noneAt) < noneLife {
		return t.none, nil
	}
	l, err := v.e.lookUp(ctx)
	if err == nil && l.cred.Empty() {
		t.none, t.noneAt = l, time.Now()
	}
	return l, err
}

// noneLife is how long it is believed that there is no credential.
const noneLife = 10 * time.Second

// lacking returns the challenges of an answer that say that the token was for
// other scopes than those needed. RFC 6750, 3.1.
func (v *visit) lacking(resp *http.Response, sent *authorization) []challenge {
	return slices.DeleteFunc(usable(challenges(resp.Header)), func(c challenge) bool {
		return c.scheme != schemeBearer || v.keyOf(c) == v.key || v.keyOf(c) == sent.key
	})
}

// usable returns the challenges that can be answered, those with a token first:
// that may be had without a credential.
func usable(all []challenge) []challenge {
	var tokens, basic []challenge
	for _, c := range all {
		switch {
		case c.scheme == schemeBearer && len(tokens) < 3:
			tokens = append(tokens, c)
		case c.scheme == schemeBasic && len(basic) == 0:
			basic = append(basic, c)
		}
	}
	return append(tokens, basic...)
}

// keyOf returns by what the token for a challenge is kept: the scopes demanded
// and those expected.
func (v *visit) keyOf(c challenge) string { return strings.Join(v.scopesOf(c), " ") }

func (v *visit) scopesOf(c challenge) []string {
	return auth.CleanScopes(append(slices.Clone(v.scopes), strings.Fields(c.params["scope"])...))
}

// accept takes up one offer after another until the server takes the request. resp
// is the answer with the offers, which is the last word if there are none. A token
// that turns out to be for too little is replaced once.
func (v *visit) accept(ctx context.Context, resp *http.Response, offers []challenge) (*http.Response, error) {
	if len(offers) == 0 {
		return resp, nil
	}
	from := resp.Request.URL
	resp = nil
	var failed error
	widened := false
	for n := 0; len(offers) > 0 && n < maxShown; n++ {
		a, fresh, err := v.e.tokens.obtain(ctx, v, offers[0], from)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			if failed == nil || errors.Is(failed, errNoLogin) {
				failed = err
			}
			offers = offers[1:]
			continue
		}
		v.attempt.fresh = v.attempt.fresh || fresh
		if resp, err = v.send(a); err != nil {
			return nil, err
		}
		denied := resp.StatusCode == http.StatusUnauthorized
		if !denied && resp.StatusCode != http.StatusForbidden {
			return resp, nil
		}
		detach(resp)
		switch more := v.lacking(resp, a); {
		case len(more) > 0 && !widened:
			offers, widened = append(more[:1], offers[1:]...), true
		case fresh && v.e.refuse(a): // there may be another credential
		case !denied:
			return resp, nil
		case fresh: // what another reader got may be as old as what was refused
			offers = offers[1:]
		}
	}
	if resp != nil {
		return resp, nil
	}
	return nil, failed
}

// maxShown is how often a request is sent with one thing or another.
const maxShown = 10

// asked returns the ways to log in that the server offers where its API begins. It
// is asked for them once. None if it cannot be asked.
func (e *endpoint) asked(ctx context.Context) []challenge {
	scheme, err := e.findScheme(ctx)
	if err != nil {
		return nil
	}
	key := scheme + "://" + e.Host + e.Path + " " + e.wire.key
	c := e.client
	c.mu.Lock()
	get := c.offers[key]
	if get == nil {
		get = remembered(func(ctx context.Context) ([]challenge, error) { return e.askOffers(ctx, scheme) })
		c.offers[key] = get
	}
	c.mu.Unlock()
	offers, err := get(ctx)
	if err != nil {
		e.client.opts.Logf("%s could not be asked how to log in: %v", e.Host, err)
	}
	return offers
}

// askOffers asks for the root of the API, and goes with redirects within the
// server.
func (e *endpoint) askOffers(ctx context.Context, scheme string) ([]challenge, error) {
	at := e.root(scheme)
	for range maxRedirects + 1 {
		req, err := e.newRequest(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, err
		}
		resp, err := e.RoundTrip(req)
		if err != nil {
			return nil, classify(err)
		}
		s := resp.StatusCode
		said := ""
		if s >= 400 {
			said = wordsOf(resp)
		}
		drain(resp.Body)
		switch {
		case s >= 500, s == http.StatusTooManyRequests:
			return nil, statusFault(s, said)
		case s < 300, s >= 400:
			return usable(challenges(resp.Header)), nil
		}
		if at, err = e.next(at, resp, at.limit); err != nil {
			return nil, err
		}
		if !at.home {
			break
		}
	}
	return nil, nil
}
