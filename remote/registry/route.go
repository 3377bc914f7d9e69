package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// ErrPrivate: a server sent its readers to an address that is nearer to this
// machine than its own, such as one of a private network, and Options do not
// allow that. It is remote.ErrUnavailable as well.
var ErrPrivate = fmt.Errorf("%w: refused address", remote.ErrUnavailable)

// A route is how a request came to be: how near the servers may be that it goes
// to, and how near the one was that answered last. It travels in the context,
// because oras-go stands in between, and belongs to one goroutine. The zero
// route leads to public addresses alone.
type route struct {
	limit address.Reach
	from  address.Reach
	named bool     // the user named the server, so that it may be anywhere
	proxy *url.URL // by which the server was asked last; nil: none
}

type routeKey struct{}

func routeOf(ctx context.Context) *route {
	if r, ok := ctx.Value(routeKey{}).(*route); ok {
		return r
	}
	return new(route)
}

// RoundTrip sends a request on behalf of the endpoint: to itself, to where it
// sent us, or to its token server.
func (e *endpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	r := routeOf(req.Context())
	limit, token := r.limit, req.Context().Value(tokenRequestKey{}) != nil
	switch {
	case r.named && !token, e.own(req.URL), token && e.named(req.URL):
		limit = address.Any
	case token:
		limit = min(r.limit, r.from)
	}
	req = req.WithContext(context.WithValue(req.Context(), askerKey{}, e))
	resp, from, err := e.client.hosts.roundTrip(req, e.wire, limit)
	if token {
		from = min(from, r.from) // it may redirect
	}
	var refused *refusal
	switch {
	case err == nil:
		r.from = from
	case errors.As(err, &refused):
		return nil, refused.fault(e.Host)
	}
	return resp, err
}

// own tells whether a URL is the endpoint's.
func (e *endpoint) own(u *url.URL) bool { return servedBy(u, e.Host) }

// named tells whether the user named a server: as the registry, as another
// place for its images, or by a directory of certificates for it.
func (e *endpoint) named(u *url.URL) bool {
	return slices.ContainsFunc(e.known, func(host string) bool { return servedBy(u, host) }) ||
		e.client.opts.CertDirs.Names(strings.ToLower(u.Host))
}

// servedBy tells whether a URL is of a host, "name" or "name:port".
func servedBy(u *url.URL, host string) bool {
	return address.Hostname(u.Host) == address.Hostname(host) && port(u) == port(&url.URL{Scheme: u.Scheme, Host: host})
}

// A way is how connections for a request are made.
type way struct {
	limit address.Reach // the nearest address allowed
	proxy *url.URL      // nil: none
	write bool          // a server takes its time to answer
	home  *home         // of a server that the user named, unless all is allowed
}

// A pool names connections that may be used for each other.
type pool struct {
	limit       address.Reach
	proxy, wire string
	write       bool
}

func (w way) pool(on *wire) pool {
	p := pool{limit: w.limit, wire: on.key, write: w.write}
	if w.proxy != nil {
		p.proxy = w.proxy.String()
	}
	return p
}

// way returns how to connect for req. The addresses of a name are judged when
// the connection is made, see gate. A proxy finds that out for itself: then
// only addresses that are written out can be judged.
func (s *hostPool) way(req *http.Request, w *wire, limit address.Reach) (by way, err error) {
	if by.proxy = w.Proxy; by.proxy == nil {
		if by.proxy, err = s.opts.Proxy(req); err != nil {
			return by, errProxy
		}
	}
	if by.proxy != nil {
		s.logProxy(req.URL.Host, by.proxy)
	}
	by.write = req.Method == http.MethodPut || req.Method == http.MethodPatch
	if by.limit = limit; s.opts.AllowPrivate {
		by.limit = address.Any
		return by, nil
	}
	if limit == address.Any {
		by.home = s.home(address.Hostname(req.URL.Host))
	} else if r := address.OfText(req.URL.Host); r > limit {
		return by, &refusal{host: req.URL.Host, reach: r}
	}
	return by, nil
}

// watch has the reach of the server noted that answers req.
func (w way) watch(req *http.Request) (*http.Request, *address.Reach) {
	peer := new(address.Reach)
	if w.proxy != nil {
		if *peer = address.OfText(req.URL.Host); *peer == address.Nowhere {
			*peer = address.Public // the user named it, and its text tells nothing
		}
		return req, peer
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if addr, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
			*peer = address.Of(addr.AddrPort().Addr())
		}
	}}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), trace)), peer
}

// A home is where a server is that the user named. It is safe for concurrent
// use.
type home struct {
	// away is set once the server was looked for at an address from which other
	// machines are reached. A name server cannot then put this machine in its
	// place.
	away atomic.Bool
}

func (s *hostPool) home(name string) *home {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.homes[name]
	if h == nil {
		h = new(home)
		s.homes[name] = h
	}
	return h
}

// A gate judges the addresses that are dialled for a host, after its name was
// resolved. Those that are refused are passed over if there are others.
type gate struct {
	host  string
	limit address.Reach
	home  *home
}

// control is for net.Dialer.Control.
func (g *gate) control(_, dialled string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(dialled)
	if err != nil {
		return err
	}
	r := address.Of(at.Addr())
	refused := r > g.limit
	if g.home != nil {
		if r < address.Link {
			g.home.away.Store(true)
		}
		refused = r >= address.Link && g.home.away.Load()
	}
	if refused {
		return &refusal{host: g.host, addr: at.Addr().String(), reach: r, home: g.home != nil}
	}
	return nil
}

// A refusal is an address that is not connected to.
type refusal struct {
	host  string
	addr  string // "" if the host is one
	reach address.Reach
	home  bool // the host was elsewhere before
}

func (r *refusal) Error() string {
	what := scrub.Text(r.host)
	if r.addr != "" {
		what += ", which is " + r.addr
	}
	return fmt.Sprintf("%s, a %s address", what, r.reach)
}

// fault says that the server from led there.
func (r *refusal) fault(from string) *fault {
	f := &fault{verdict: odd, class: ErrPrivate}
	if r.home {
		f.text = fmt.Sprintf("%s; it was elsewhere before", r)
	} else {
		f.text = fmt.Sprintf("%s leads to %s", from, r)
	}
	return f
}

var _ http.RoundTripper = (*endpoint)(nil)
