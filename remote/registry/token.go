package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// A tokenCache holds what a repository's requests are authorised with. When
// a token is refused, the first reader that notices gets a new one, and all
// others that had the old one use it. It is safe for concurrent use.
type tokenCache struct {
	timeout  time.Duration // of a request for a token
	fetching ctxMutex      // held while a token is got

	// none is a look-up that found no credential, and noneAt when that was. They
	// are under fetching.
	none   login
	noneAt time.Time

	mu     sync.Mutex
	tokens map[string]*authorization // by scopes
	failed error                     // why getting a token failed last
	failAt time.Time

	// refusedCred is the credential that was refused last, and refusedAt when that was.
	refusedCred hosts.Credential
	refusedAt   time.Time
}

func newTokenCache(timeout time.Duration) *tokenCache {
	return &tokenCache{timeout: timeout, fetching: newCtxMutex(), tokens: make(map[string]*authorization)}
}

// get returns what is to be shown for scopes; nil: nothing yet.
func (c *tokenCache) get(key string) *authorization {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens[key]
}

// obtain gets what an offer of the server at from wants to be shown, in place of
// what the visit was sent with, unless another reader has done so since. fresh
// says that it is new.
func (c *tokenCache) obtain(ctx context.Context, v *visit, offer challenge, from *url.URL) (a *authorization, fresh bool, err error) {
	asked, key := time.Now(), v.keyOf(offer)
	if a := c.get(key); a != nil && a != v.attempt.sent {
		return a, false, nil
	}
	if err := c.fetching.lock(ctx); err != nil {
		return nil, false, err
	}
	defer c.fetching.unlock()
	if a, err := c.others(key, v.attempt.sent, asked); a != nil || err != nil {
		return a, true, err
	}
	if a, err = v.e.logIn(ctx, offer, v.scopesOf(offer), from); a != nil {
		a.key = key
	}
	if err == nil || ctx.Err() == nil { // a reader that gives up speaks for no other
		c.store([]string{key, v.key}, a, err)
	}
	return a, true, err
}

// others returns what another reader's request for a token brought while
// this one waited since asked.
func (c *tokenCache) others(key string, sent *authorization, asked time.Time) (*authorization, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.tokens[key]; a != nil && a != sent {
		return a, nil
	}
	if c.failAt.After(asked) {
		return nil, c.failed
	}
	return nil, nil
}

// maxScopes is about how many scopes tokens are kept for. A registry demands
// one, or two.
const maxScopes = 16

// store keeps a token for all of keys: the scopes that the registry demanded
// and those that were expected. If they differ and the token were not found
// under both, each request would be sent twice.
func (c *tokenCache) store(keys []string, a *authorization, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed, c.failAt = err, time.Now()
		return
	}
	// A registry can demand another scope for each request.
	if len(c.tokens) > maxScopes {
		clear(c.tokens)
	}
	for _, key := range keys {
		c.tokens[key] = a
	}
}

// forget drops what the attempt was sent with last, unless something was got
// during the attempt. It tells whether sending the request again makes sense.
func (c *tokenCache) forget(a *attempt) bool {
	if a.sent == nil || a.fresh {
		return false
	}
	c.drop(a.sent)
	a.sent = nil
	return true
}

// refused drops what a request was refused with if a better credential may have
// been found since: it is a stranger's for want of one.
func (c *tokenCache) refused(a *authorization) {
	if a.trouble != "" {
		c.drop(a)
	}
}

func (c *tokenCache) drop(a *authorization) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.tokens, func(_ string, kept *authorization) bool { return kept == a })
}

// logIn returns what an offer wants to be shown. A token server that refuses the
// credential is shown the next one, if there is one, and then asked for a stranger's token.
func (e *endpoint) logIn(ctx context.Context, offer challenge, scopes []string, from *url.URL) (*authorization, error) {
	var realm *url.URL
	if offer.scheme == schemeBearer {
		var err error
		if realm, err = e.realm(ctx, offer, from); err != nil {
			return nil, err
		}
	}
	l, err := e.lookUpOnce(ctx)
	if err != nil {
		return nil, err
	}
	a := &authorization{used: !l.cred.Empty(), origin: l.cred.Origin, cred: l.cred, last: l.last, trouble: l.trouble, loud: l.loud}
	user := l.cred.User != "" || l.cred.Password != ""
	switch {
	case offer.scheme == schemeBasic && user:
		a.basic, a.header = true, "Basic "+base64.StdEncoding.EncodeToString([]byte(l.cred.User+":"+l.cred.Password))
		return a, nil
	case offer.scheme == schemeBasic && a.used && e.refuse(a):
		return e.logIn(ctx, offer, scopes, from)
	case offer.scheme == schemeBasic && a.used:
		return nil, &fault{class: remote.ErrUnauthorized, text: fmt.Sprintf("%s wants user and password, and %s has none", e.Host, ofOrigin(a.origin))}
	case offer.scheme == schemeBasic:
		return nil, l.noLogin(e.Host)
	case l.cred.RegistryToken != "":
		a.header = "Bearer " + l.cred.RegistryToken
		return a, nil
	}
	t := &tokenRequest{e: e, realm: realm, service: offer.params["service"], scopes: scopes, cred: l.cred}
	err = t.run(ctx, a)
	var f *fault
	switch {
	case err == nil:
		return a, nil
	case !errors.As(err, &f), !errors.Is(f, remote.ErrUnauthorized):
		return nil, err
	case f.class == ErrRefusedCredential && e.refuse(a):
		return e.logIn(ctx, offer, scopes, from)
	case a.used && a.trouble != "":
		f.text = a.trouble + "; " + f.text
	case a.trouble != "":
		return nil, &fault{class: ErrBrokenCredential, text: a.trouble + "; without it: " + f.text}
	}
	if f.class != ErrRefusedCredential {
		return nil, f
	}
	// Many images are for everybody.
	stranger := &authorization{trouble: f.text, loud: true}
	t.cred = hosts.Credential{}
	if t.run(ctx, stranger) != nil {
		return nil, f
	}
	return stranger, nil
}

// realm returns where an offer of the server at from has its tokens.
func (e *endpoint) realm(ctx context.Context, offer challenge, from *url.URL) (*url.URL, error) {
	text := offer.params["realm"]
	if text == "" {
		return nil, &fault{class: remote.ErrUnavailable, unmet: true, text: from.Host + " wants a token and does not say from where: there is no realm in its challenge"}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, &fault{class: remote.ErrUnavailable, unmet: true, text: fmt.Sprintf("%s wants a token from %q, which is not the URL of a server", from.Host, scrub.Text(text))}
	}
	u.User, u.Fragment = nil, ""
	u, err = secured(from, u, func(u *url.URL) bool { return e.plain(ctx, u) })
	return u, e.atFault(err)
}

// A tokenRequest is a request for a token, for a user or, with an empty
// credential, for a stranger.
// https://distribution.github.io/distribution/spec/auth/
type tokenRequest struct {
	e       *endpoint
	realm   *url.URL
	service string
	scopes  []string
	cred    hosts.Credential
}

// tokenRequestKey marks the context of a request for a token.
type tokenRequestKey struct{}

// run sends the request, and sets what it brings in a. The error is a *fault, or
// says that ctx has ended.
func (t *tokenRequest) run(ctx context.Context, a *authorization) error {
	if !t.cred.Empty() && !t.e.mayTell(ctx, t.realm) {
		return &fault{class: ErrPlainHTTP, host: t.e.Ref.Registry, text: fmt.Sprintf("%s is not sent to %s", ofOrigin(t.cred.Origin), bareURL(t.realm))}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(t.e.tokens.timeout, func() { cancel(errStalled) })
	defer timer.Stop()
	ctx = context.WithValue(ctx, tokenRequestKey{}, true)
	begun := time.Now()
	err := t.exchange(ctx, a)
	var known *fault
	if err != nil && !errors.As(err, &known) {
		switch {
		case givenUp(ctx):
			return context.Cause(ctx)
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		err = classify(err).by("the token server " + scrub.Text(t.realm.Host))
	}
	if h := attemptOf(ctx).host.Load(); h != nil {
		h.health.token(ctx, begun, err)
	}
	return err
}

// exchange sends the request along redirects, and reads the answer. An error that
// is no *fault is one of the connection.
func (t *tokenRequest) exchange(ctx context.Context, a *authorization) error {
	at := &location{url: t.realm, home: true, limit: address.Any}
	for range maxRedirects + 1 {
		resp, err := t.send(ctx, at)
		if err != nil {
			return err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			drain(resp.Body)
		default:
			defer resp.Body.Close()
			return t.read(resp, a)
		}
		next, err := t.e.next(at, resp, at.limit)
		if err != nil {
			return err
		}
		if t.cred.IdentityToken != "" && (!next.home || resp.StatusCode < http.StatusTemporaryRedirect) {
			return &fault{class: remote.ErrUnauthorized, text: fmt.Sprintf("the token server %s redirects to %s, where %s is not sent", at.url.Host, bareURL(next.url), ofOrigin(t.cred.Origin))}
		}
		at = next
	}
	return oddf("the token server %s redirects more than %d times", t.realm.Host, maxRedirects)
}

// send sends it to one place, with the credential as long as that is the realm's
// server.
func (t *tokenRequest) send(ctx context.Context, at *location) (*http.Response, error) {
	values := url.Values{}
	if t.service != "" {
		values.Set("service", t.service)
	}
	method, u, body := http.MethodGet, *at.url, ""
	if t.cred.IdentityToken != "" {
		for name, value := range map[string]string{"grant_type": "refresh_token", "refresh_token": t.cred.IdentityToken, "client_id": "imgfs", "scope": strings.Join(t.scopes, " ")} {
			if value != "" {
				values.Set(name, value)
			}
		}
		method, body = http.MethodPost, values.Encode()
	} else if at.url == t.realm { // a redirect says itself what to ask for
		query := u.Query()
		maps.Copy(query, values)
		for _, scope := range t.scopes {
			query.Add("scope", scope)
		}
		u.RawQuery = query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", t.e.client.opts.UserAgent)
	switch {
	case body != "":
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case at.home && (t.cred.User != "" || t.cred.Password != ""):
		req.SetBasicAuth(t.cred.User, t.cred.Password)
	}
	return t.e.RoundTrip(req)
}

// maxToken is how long an answer with a token may be, in bytes.
const maxToken = 128 << 10

// read reads the answer.
func (t *tokenRequest) read(resp *http.Response, a *authorization) error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 { // docker takes all of these
		return t.refusal(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return err
	}
	// Some servers have one name and some the other.
	var answer struct {
		Token, Access_Token string
		Expires_In          json.RawMessage // of any form
	}
	junk := &fault{verdict: busy, class: remote.ErrUnavailable, text: "the token server " + resp.Request.URL.Host + " answers without a token" + encoded(resp.Header)}
	if said := reasonOf(resp, data); said != "" {
		junk.text += ": " + said
	}
	if json.Unmarshal(data, &answer) != nil {
		return junk
	}
	token := answer.Access_Token
	if token == "" {
		token = answer.Token
	}
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return junk
	}
	a.header = "Bearer " + token
	var seconds float64
	if json.Unmarshal(answer.Expires_In, &seconds) == nil && seconds > 0 && seconds < 1e9 {
		a.ends = time.Now().Add(time.Duration(seconds * float64(time.Second)))
	}
	return nil
}

// reasonOf returns what an answer says that should have a token. Text alone may be
// the token.
func reasonOf(resp *http.Response, body []byte) string {
	if !isPage(body) && !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		return ""
	}
	return words(resp.Header.Get("Content-Type"), body, sentWith(resp.Request))
}

// refusal says what it means that the token server answers with a status. It
// refuses a credential with 401, and a refresh token that is not valid any more
// with 400.
func (t *tokenRequest) refusal(resp *http.Response) *fault {
	f := statusFault(resp.StatusCode, wordsOf(resp))
	if f.verdict == busy {
		f.text = "the token server " + resp.Request.URL.Host + " answers " + f.text
		return f
	}
	f.verdict, f.class = final, remote.ErrUnauthorized
	switch f.status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		if !t.cred.Empty() {
			f.class = ErrRefusedCredential
			f.text = fmt.Sprintf("the token server %s refuses %s: %s", resp.Request.URL.Host, ofOrigin(t.cred.Origin), f.text)
			f.status = 0 // explained
			return f
		}
	}
	f.status = 0
	f.text = "the token server " + resp.Request.URL.Host + " answers " + f.text
	return f
}
