package registry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// ErrPlainHTTP: a server that is spoken to by https leads to one by plain http, for
// a blob or for a token, and nothing says that its registry may be insecure. It is
// remote.ErrUnavailable as well.
var ErrPlainHTTP = fmt.Errorf("%w: refused plain http", remote.ErrUnavailable)

// insecure tells whether the user has said that the registry needs no secure
// connections: then where it leads needs none.
func (e *endpoint) insecure() bool {
	if verify := e.client.opts.TLSVerify; verify != nil {
		return !*verify
	}
	return e.Insecure || e.Wire.SkipVerify
}

// plain tells whether the endpoint may lead to a server by plain http: because the
// user has said so of its registry, or of that server, as if it were a registry.
func (e *endpoint) plain(ctx context.Context, u *url.URL) bool {
	if e.client.opts.TLSVerify != nil || e.insecure() {
		return e.insecure()
	}
	sites, err := e.client.opts.Sites(ctx, remote.Reference{Registry: u.Host, Repository: e.Ref.Repository, Tag: "latest"})
	return err == nil && slices.ContainsFunc(sites, func(s *hosts.Site) bool {
		return s != nil && s.Ref.Registry == u.Host && servedBy(u, s.Host) && (s.Insecure || s.Scheme == "http")
	})
}

// mayTell tells whether a credential may be sent to a server that is no registry.
func (e *endpoint) mayTell(ctx context.Context, u *url.URL) bool {
	return u.Scheme == "https" || e.Scheme == "http" || address.IsLoopback(u.Host) || e.plain(ctx, u)
}

// secured returns where from leads to: u, or the same by https if that is where from
// is itself. A server behind one that ends TLS often does not know that it is
// reached by https. Elsewhere plain http after https is refused, unless it is
// allowed.
func secured(from, u *url.URL, allowed func(*url.URL) bool) (*url.URL, error) {
	if from.Scheme != "https" || u.Scheme != "http" {
		return u, nil
	}
	byDefault := port(from) == "443" && port(u) == "80"
	if address.Hostname(from.Host) == address.Hostname(u.Host) && (port(from) == port(u) || byDefault) {
		same := *u
		if same.Scheme = "https"; byDefault {
			same.Host = strings.TrimSuffix(u.Host, ":80")
		}
		return &same, nil
	}
	if allowed(u) {
		return u, nil
	}
	return nil, &fault{class: ErrPlainHTTP, text: bareURL(from) + " leads to " + bareURL(u)}
}

// atFault says in an error of secured whose setting it is about.
func (e *endpoint) atFault(err error) error {
	var f *fault
	if errors.As(err, &f) && f.class == ErrPlainHTTP {
		f.host = e.Ref.Registry
	}
	return err
}

// bareURL returns a URL for a message: without its query, which can hold a
// signature.
func bareURL(u *url.URL) string { return scrub.Text(u.Scheme + "://" + u.Host + u.EscapedPath()) }
