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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/imgfs/imgfs/remote"
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
	limit reach
	from  reach
	named bool // the user named the server, so that it may be anywhere
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
		limit = reachAny
	case token:
		limit = min(r.limit, r.from)
	}
	resp, from, err := e.client.hosts.roundTrip(req, e.wire, limit)
	if token {
		from = min(from, r.from) // it may redirect
	}
	var refused *refusal
	switch {
	case err == nil:
		r.from = from
	case errors.As(err, &refused):
		return nil, refused.fault(e.host)
	}
	return resp, err
}

// own tells whether a URL is the endpoint's.
func (e *endpoint) own(u *url.URL) bool { return servedBy(u, e.host) }

// named tells whether the user named a server: as the registry, as another
// place for its images, or by a directory of certificates for it.
func (e *endpoint) named(u *url.URL) bool {
	return slices.ContainsFunc(e.known, func(host string) bool { return servedBy(u, host) }) ||
		hasCertDir(e.client.opts, strings.ToLower(u.Host))
}

// servedBy tells whether a URL is of a host, "name" or "name:port".
func servedBy(u *url.URL, host string) bool {
	return hostname(u.Host) == hostname(host) && port(u) == port(&url.URL{Scheme: u.Scheme, Host: host})
}

// A way is how connections for a request are made.
type way struct {
	limit reach    // the nearest address allowed
	proxy *url.URL // nil: none
	home  *home    // of a server that the user named, unless all is allowed
}

// A pool names connections that may be used for each other.
type pool struct {
	limit       reach
	proxy, wire string
}

func (w way) pool(on *wire) pool {
	p := pool{limit: w.limit, wire: on.key}
	if w.proxy != nil {
		p.proxy = w.proxy.String()
	}
	return p
}

// way returns how to connect for req. What a name stands for is judged when
// the connection is made, see gate. A proxy finds that out for itself: then
// only addresses that are written out can be judged.
func (s *hosts) way(req *http.Request, w *wire, limit reach) (by way, err error) {
	if by.proxy = w.proxy; by.proxy == nil {
		if by.proxy, err = s.opts.Proxy(req); err != nil {
			return by, err
		}
	}
	if by.limit = limit; s.opts.AllowPrivate {
		by.limit = reachAny
		return by, nil
	}
	if limit == reachAny {
		by.home = s.home(hostname(req.URL.Host))
	} else if r := literalReach(req.URL.Host); r > limit {
		return by, &refusal{host: req.URL.Host, reach: r}
	}
	return by, nil
}

// watch has the reach of the server noted that answers req.
func (w way) watch(req *http.Request) (*http.Request, *reach) {
	peer := new(reach)
	if w.proxy != nil {
		if *peer = literalReach(req.URL.Host); *peer == reachNowhere {
			*peer = reachPublic // the user named it, and its text tells nothing
		}
		return req, peer
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if addr, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
			*peer = reachOf(addr.AddrPort().Addr())
		}
	}}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), trace)), peer
}

// A home is where a server is that the user named. It is safe for concurrent
// use.
type home struct {
	// away is set once the server was looked for at an address from which other
	// machines are reached. Whoever answers for its name cannot then put this
	// machine in its place.
	away atomic.Bool
}

func (s *hosts) home(name string) *home {
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
	limit reach
	home  *home
}

// control is for net.Dialer.Control.
func (g *gate) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	r := reachOf(at.Addr())
	refused := r > g.limit
	if g.home != nil {
		if r < reachLink {
			g.home.away.Store(true)
		}
		refused = r >= reachLink && g.home.away.Load()
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
	reach reach
	home  bool // the host was elsewhere before
}

func (r *refusal) Error() string {
	what := scrub(r.host)
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

// hasCertDir tells whether there is a directory of certificates, or of
// containerd's hosts.toml, that is called after host itself.
func hasCertDir(o *Options, host string) bool {
	for _, root := range o.CertDirs {
		for _, name := range hostDirNames(host) {
			if !filepath.IsLocal(name) || name == "." {
				continue // the name comes from a redirect
			}
			if st, err := os.Stat(filepath.Join(root, name)); err == nil && st.IsDir() {
				return true
			}
		}
	}
	return false
}
