package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// A Client speaks to registries and to the servers they redirect to. Its
// repositories share connections, and the limits that hosts have. It is safe
// for concurrent use.
type Client struct {
	opts    *Options
	hosts   *hosts
	probing turn // of finding out a scheme

	mu      sync.Mutex
	schemes map[string]string // of hosts that plain http is allowed for
	spools  map[*spool]struct{}
	closed  bool
	fillers sync.WaitGroup // of spools
}

// New returns a client. It asks no one for anything. A nil opts means the
// defaults.
func New(opts *Options) *Client {
	o := opts.withDefaults()
	return &Client{
		opts:    o,
		hosts:   newHosts(o),
		probing: newTurn(),
		schemes: make(map[string]string),
		spools:  make(map[*spool]struct{}),
	}
}

// Repository returns the image that ref names. It asks no one for anything.
func (c *Client) Repository(ref remote.Reference) *Repository {
	r := &Repository{
		client: c,
		ref:    ref,
		host:   apiHost(ref.Registry),
		tokens: newTokenCache(c.opts.HeaderTimeout + c.opts.StallTimeout),
		blobs:  make(map[digest.Digest]*blob),
	}
	r.auth = newAuthClient(r)
	return r
}

// Close ends the connections that are idle and gives up blobs that are being
// spooled, and waits for that. Reads still under way may fail; the client
// must not be used afterwards.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	spools := c.spools
	c.spools = nil
	c.mu.Unlock()
	for s := range spools {
		s.abort()
	}
	c.fillers.Wait()
	var errs []error
	for s := range spools {
		errs = append(errs, s.file.Close())
	}
	c.hosts.closeIdle()
	return errors.Join(errs...)
}

// apiHost returns the host that serves the API of a registry. Docker Hub's
// is not the one it is named after.
func apiHost(registry string) string {
	if registry == dockerHub {
		return "registry-1.docker.io"
	}
	return registry
}

// scheme returns how host is spoken to. It is found out once, before any
// credential is sent, and does not change afterwards: what was https never
// becomes http.
func (c *Client) scheme(ctx context.Context, host string) (string, error) {
	if verify := c.opts.TLSVerify; verify == nil && !isLoopback(host) || verify != nil && *verify {
		return "https", nil
	}
	if err := c.probing.take(ctx); err != nil {
		return "", err
	}
	defer c.probing.pass()
	c.mu.Lock()
	scheme := c.schemes[host]
	c.mu.Unlock()
	if scheme != "" {
		return scheme, nil
	}
	scheme, err := c.probe(ctx, host)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.schemes[host] = scheme
	return scheme, nil
}

// probe asks host, which may speak plain http, whether it does.
func (c *Client) probe(ctx context.Context, host string) (string, error) {
	err := c.ping(ctx, "https", host)
	if err == nil {
		return "https", nil
	}
	var cert *tls.CertificateVerificationError
	if ctx.Err() != nil || errors.As(err, &cert) {
		return "", err
	}
	if c.ping(ctx, "http", host) == nil {
		c.opts.Logf("%s speaks plain http", host)
		return "http", nil
	}
	return "", err
}

func (c *Client) ping(ctx context.Context, scheme, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	resp, err := c.hosts.RoundTrip(req)
	if err != nil {
		return err
	}
	drain(resp.Body)
	if scheme == "http" && resp.StatusCode == http.StatusBadRequest {
		// So answer servers of https.
		return oddf("%s answers %d to plain http", host, resp.StatusCode)
	}
	return nil
}
