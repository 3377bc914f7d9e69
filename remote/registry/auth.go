package registry

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// newAuthClient returns a client that answers the challenges of one repository
// at one server. Credentials can differ between repositories of a registry, so
// nothing of it is shared.
func newAuthClient(e *endpoint) *auth.Client {
	return &auth.Client{
		Client:     &http.Client{Transport: e, CheckRedirect: checkRedirect},
		Header:     http.Header{"User-Agent": {e.client.opts.UserAgent}},
		Credential: e.credential,
		Cache:      e.tokens,
		ClientID:   "imgfs",
		// oras-go would look the name of a token server up once more, and
		// judge it before it is connected to. RoundTrip judges the address.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
}

type tokenRequestKey struct{}

// A tokenRequest is a request for a token that is under way. Its time is that
// of the token server: it stands still while a credential is looked up, which
// has a limit of its own.
type tokenRequest struct {
	timer   *time.Timer
	timeout time.Duration
}

// pause stops the time until the function that it returns is called.
func (r *tokenRequest) pause() (resume func()) {
	r.timer.Stop()
	return func() { r.timer.Reset(r.timeout) }
}

// checkRedirect lets only requests for tokens follow redirects by
// themselves, on which oras-go has an eye; follow sees to the others.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if req.Context().Value(tokenRequestKey{}) == nil {
		return http.ErrUseLastResponse
	}
	if len(via) > maxRedirects {
		return oddf("the token server redirects more than %d times", maxRedirects)
	}
	return nil
}

// credential is asked whenever a token is needed, so that a credential that
// has expired is replaced by what its helper says now. It is that of the
// server, not of the registry that the server stands in for.
func (e *endpoint) credential(ctx context.Context, _ string) (auth.Credential, error) {
	if r, ok := ctx.Value(tokenRequestKey{}).(*tokenRequest); ok {
		defer r.pause()()
	}
	c, err := e.client.opts.Credential(ctx, e.Ref.Registry, e.Ref.Repository)
	if err != nil {
		if givenUp(ctx) {
			return auth.EmptyCredential, context.Cause(ctx)
		}
		return auth.EmptyCredential, &fault{class: remote.ErrUnauthorized, text: scrub.Text(err.Error())}
	}
	if c != (hosts.Credential{}) {
		e.keepSecure()
	}
	return auth.Credential{Username: c.User, Password: c.Password, RefreshToken: c.IdentityToken, AccessToken: c.RegistryToken}, nil
}

// A tokenCache holds what a repository's requests are authorised with. When
// a token is refused, the first reader that notices gets a new one, and all
// others that had the old one use it. It is safe for concurrent use.
type tokenCache struct {
	timeout  time.Duration // of a request for a token
	fetching ctxMutex      // held while a token is got

	mu     sync.Mutex
	scheme auth.Scheme
	tokens map[string]string // by scope
	failed error             // why getting a token failed last
	failAt time.Time
}

var _ auth.Cache = (*tokenCache)(nil)

func newTokenCache(timeout time.Duration) *tokenCache {
	return &tokenCache{timeout: timeout, fetching: newCtxMutex(), tokens: make(map[string]string)}
}

// GetScheme returns the scheme of the tokens held.
func (c *tokenCache) GetScheme(context.Context, string) (auth.Scheme, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 {
		return auth.SchemeUnknown, errdef.ErrNotFound
	}
	return c.scheme, nil
}

// GetToken returns the token for a scope.
func (c *tokenCache) GetToken(ctx context.Context, _ string, scheme auth.Scheme, scope string) (string, error) {
	a := attemptOf(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	a.token = ""
	if c.scheme == scheme {
		a.token = c.tokens[scope]
	}
	if a.token == "" {
		return "", errdef.ErrNotFound
	}
	return a.token, nil
}

// Set gets a new token in place of the one that the attempt was sent with,
// unless another reader has done so since.
func (c *tokenCache) Set(ctx context.Context, host string, scheme auth.Scheme, scope string, fetch func(context.Context) (string, error)) (string, error) {
	a := attemptOf(ctx)
	asked := time.Now()
	if err := c.fetching.lock(ctx); err != nil {
		return "", err
	}
	defer c.fetching.unlock()
	token, err := c.others(a, scheme, scope, asked)
	if token == "" && err == nil {
		token, err = c.fetch(ctx, scheme, fetch)
		if err == nil || ctx.Err() == nil { // a reader that gives up speaks for no other
			c.store(scheme, []string{scope, strings.Join(auth.GetAllScopesForHost(ctx, host), " ")}, token, err)
		}
	}
	if err != nil {
		return "", err
	}
	a.token, a.fresh = token, true
	return token, nil
}

// others returns what another reader's request for a token brought while
// this one waited since asked.
func (c *tokenCache) others(a *attempt, scheme auth.Scheme, scope string, asked time.Time) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if token := c.tokens[scope]; token != a.token && c.scheme == scheme {
		return token, nil
	}
	if c.failAt.After(asked) {
		return "", c.failed
	}
	return "", nil
}

func (c *tokenCache) fetch(ctx context.Context, scheme auth.Scheme, fetch func(context.Context) (string, error)) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(c.timeout, func() { cancel(errStalled) })
	defer timer.Stop()
	ctx = context.WithValue(ctx, tokenRequestKey{}, &tokenRequest{timer, c.timeout})
	begun := time.Now()
	token, err := fetch(ctx)
	var known *fault
	if err != nil && ctx.Err() != nil && !errors.As(err, &known) {
		return "", context.Cause(ctx)
	}
	err = tokenFault(scheme, err)
	if h := attemptOf(ctx).host.Load(); h != nil && scheme == auth.SchemeBearer {
		h.health.token(ctx, begun, err)
	}
	return token, err
}

// maxScopes is about how many scopes tokens are kept for. A registry demands
// one, or two.
const maxScopes = 16

// store keeps a token for all of scopes: the one that the registry demanded
// and the one that was expected. If they differ and the token were not found
// under both, each request would be sent twice.
func (c *tokenCache) store(scheme auth.Scheme, scopes []string, token string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed, c.failAt = err, time.Now()
		return
	}
	// A registry can demand another scope for each request.
	if c.scheme != scheme || len(c.tokens) > maxScopes {
		clear(c.tokens)
	}
	c.scheme = scheme
	for _, scope := range scopes {
		c.tokens[scope] = token
	}
}

// forget drops the token that the attempt was sent with, unless it is new.
// It tells whether sending the request again makes sense.
func (c *tokenCache) forget(ctx context.Context) bool {
	a := attemptOf(ctx)
	if a.token == "" || a.fresh {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.tokens, func(_, token string) bool { return token == a.token })
	a.token = ""
	return true
}

// tokenFault says what the failure to get a token means for the request that
// needs it.
func tokenFault(scheme auth.Scheme, err error) error {
	var (
		known    *fault
		response *errcode.ErrorResponse
	)
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, auth.ErrBasicCredentialNotFound):
		return err
	case scheme == auth.SchemeBasic:
		return &fault{class: remote.ErrUnauthorized, text: "the registry wants user and password: " + scrub.Text(err.Error())}
	case !errors.As(err, &response):
		return err
	}
	f := statusFault(response.StatusCode, response.Errors)
	if f.verdict != busy {
		// A refresh token that is not valid any more is answered with 400.
		f.verdict, f.class = final, remote.ErrUnauthorized
	}
	f.text = "the token server answers " + f.text
	return f
}
