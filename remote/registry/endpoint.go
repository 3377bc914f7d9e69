package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry"
	orasremote "oras.land/oras-go/v2/registry/remote"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

// An endpoint is a site that has a repository, with the tokens got there. It
// is safe for concurrent use.
type endpoint struct {
	*hosts.Site
	client   *Client
	wire     *wire
	original string   // the repository's name as the user knows it
	known    []string // hosts of all sites of the repository
	mirror   bool     // it is not the last of them
	stated   bool     // it is the registry in that name
	tokens   *tokenCache
	probing  ctxMutex // held while the scheme is found out
	trouble  string   // with the places of its credential; under Client.mu

	credentials sentCredentials
}

// findEndpoints returns the servers to ask for the repository, in order. The
// last one is no mirror: it has the last word.
func (r *Repository) findEndpoints(ctx context.Context) ([]*endpoint, error) {
	opts := r.client.opts
	sites, err := opts.Sites(ctx, r.ref)
	if err != nil {
		return nil, err
	}
	if len(sites) == 0 || slices.ContainsFunc(sites, func(s *hosts.Site) bool { return s == nil || s.Host == "" || s.Ref.Repository == "" }) {
		return nil, errNoSite
	}
	var endpoints []*endpoint
	var known []string
	for _, s := range sites {
		known = append(known, s.Host)
	}
	for i, s := range sites {
		e := &endpoint{Site: s, client: r.client, wire: newWire(opts, s), original: r.ref.Name(), known: known, probing: newCtxMutex(),
			mirror: i < len(sites)-1, stated: strings.EqualFold(s.Host, hosts.Canonical(r.ref).Host),
			tokens: newTokenCache(opts.HeaderTimeout + opts.StallTimeout)}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// location returns the address of one of the repository's resources.
func (e *endpoint) location(ctx context.Context, path string) (*location, error) {
	scheme, err := e.findScheme(ctx)
	if err != nil {
		return nil, err
	}
	at := e.root(scheme)
	at.url.Path += e.Ref.Repository + "/" + path
	return at, nil
}

// root returns the address where the endpoint's API begins.
func (e *endpoint) root(scheme string) *location {
	u := &url.URL{Scheme: scheme, Host: e.Host, Path: e.Path + "/"}
	if e.Namespace != "" {
		u.RawQuery = url.Values{"ns": {e.Namespace}}.Encode()
	}
	return &location{url: u, home: true, limit: address.Any}
}

// findScheme returns the endpoint's scheme. It is found out once, before any
// credential is sent, and https never becomes http afterwards.
func (e *endpoint) findScheme(ctx context.Context) (string, error) {
	verify := e.client.opts.TLSVerify
	plain := e.Insecure || address.IsLoopback(e.Host)
	if verify != nil {
		plain = !*verify
	}
	switch {
	case e.Scheme == "https", e.Scheme == "" && !plain:
		return "https", nil
	case e.Scheme == "http" && verify != nil && *verify:
		return "", &fault{class: ErrTLSPlain, host: e.Host, text: e.Host + " is configured for plain http, and only https is wanted"}
	case e.Scheme == "http":
		return e.allowPlain()
	}
	if err := e.probing.lock(ctx); err != nil {
		return "", err
	}
	defer e.probing.unlock()
	key := e.Host + " " + e.wire.key
	e.client.mu.Lock()
	scheme := e.client.schemes[key]
	e.client.mu.Unlock()
	if scheme == "" {
		var err error
		if scheme, err = e.probe(ctx); err != nil {
			return "", err
		}
		e.client.mu.Lock()
		e.client.schemes[key] = scheme
		e.client.mu.Unlock()
	}
	if scheme == "http" {
		return e.allowPlain()
	}
	return scheme, nil
}

// keepSecure notes that the endpoint gets a credential. The same server may
// be another endpoint elsewhere, where configuration allows plain http.
func (e *endpoint) keepSecure() {
	e.client.mu.Lock()
	defer e.client.mu.Unlock()
	if e.Scheme == "http" || e.client.schemes[e.Host+" "+e.wire.key] == "http" {
		return
	}
	e.client.known[e.Host] = true
}

// allowPlain is the scheme http, unless a credential was sent there by https.
func (e *endpoint) allowPlain() (string, error) {
	e.client.mu.Lock()
	defer e.client.mu.Unlock()
	if e.client.known[e.Host] {
		return "", &fault{class: ErrTLS, text: e.Host + " was sent a credential by https, and is not spoken to by plain http any more"}
	}
	return "http", nil
}

// probe asks a server that may speak plain http whether it does.
func (e *endpoint) probe(ctx context.Context) (string, error) {
	if deadline := attemptOf(ctx).deadline(); !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline, errStalled)
		defer cancel()
	}
	err := e.ping(ctx, "https")
	if err == nil {
		return "https", nil
	}
	if ctx.Err() == nil && !errors.Is(err, errCertificate) && e.ping(ctx, "http") == nil {
		e.client.opts.Logf("%s speaks plain http", e.Host)
		return "http", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return "", err
}

func (e *endpoint) ping(ctx context.Context, scheme string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+e.Host+e.Path+"/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", e.client.opts.UserAgent)
	resp, err := e.RoundTrip(req)
	if err != nil {
		return err
	}
	drain(resp.Body)
	if scheme == "http" && resp.StatusCode == http.StatusBadRequest {
		// So answer servers of https.
		return oddf("%s answers %d to plain http", e.Host, resp.StatusCode)
	}
	return nil
}

// oras returns oras-go's view of the repository: it lists tags.
func (e *endpoint) oras(ctx context.Context) (*orasremote.Repository, error) {
	at, err := e.location(ctx, "")
	if err != nil {
		return nil, err
	}
	return &orasremote.Repository{
		Client:             orasClient{e},
		Reference:          registry.Reference{Registry: e.Host, Repository: e.Ref.Repository},
		PlainHTTP:          at.url.Scheme == "http",
		ManifestMediaTypes: manifestTypes(),
		MaxMetadataBytes:   maxTagPage,
	}, nil
}

// An orasClient sends oras-go's requests the way of all others.
type orasClient struct{ e *endpoint }

// Do is like http.Client's; its error is a *fault. oras-go believes all APIs
// to be at /v2, and knows of no ns.
func (c orasClient) Do(req *http.Request) (*http.Response, error) {
	path, ok := strings.CutPrefix(req.URL.Path, c.e.Path+"/"+c.e.Ref.Repository+"/")
	if !ok {
		path = strings.TrimPrefix(req.URL.Path, "/v2/"+c.e.Ref.Repository+"/")
	}
	at, err := c.e.location(req.Context(), path)
	if err != nil {
		return nil, classify(err)
	}
	query := at.url.Query()
	for name, values := range req.URL.Query() {
		query[name] = values
	}
	at.url.RawQuery = query.Encode()
	resp, from, err := c.e.ask(req.Context(), &request{method: req.Method, header: req.Header, actions: []string{actionPull}}, at)
	if err != nil {
		return nil, classify(err)
	}
	if resp.StatusCode >= 400 {
		defer drain(resp.Body)
		return nil, c.e.refusal(resp, from)
	}
	return resp, nil
}

// reference is the tag or digest that the endpoint is asked for.
func (e *endpoint) reference() string {
	if e.Ref.Digest != "" {
		return e.Ref.Digest.String()
	}
	return e.Ref.Tag
}

var errNoResolver = &fault{class: hosts.ErrConfiguration, text: "of the servers configured none may say what a tag is"}

var errNoWriter = &fault{class: hosts.ErrConfiguration, text: "of the servers configured none may be written to"}

var errNoServer = &fault{class: remote.ErrUnavailable, text: "of the servers configured none may be asked for content"}

var errNoSite = &fault{class: hosts.ErrConfiguration, text: "no server is configured"}
