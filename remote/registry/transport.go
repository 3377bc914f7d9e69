package registry

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// newTransport returns the connection pool for one host, "name" or
// "name:port", on behalf of a site with the wire w, by a way.
func newTransport(o *Options, host string, w *wire, by way) (*http.Transport, error) {
	conf, err := tlsConfig(o, host, w)
	if err != nil {
		return nil, err
	}
	dialTimeout := o.DialTimeout
	if w.dialTimeout > 0 {
		dialTimeout = w.dialTimeout
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	var proxy func(*http.Request) (*url.URL, error)
	if by.proxy != nil {
		proxy = http.ProxyURL(by.proxy)
	} else if !o.AllowPrivate {
		dialer.Control = (&gate{host: host, limit: by.limit, home: by.home}).control
	}
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: o.HeaderTimeout,
		// The default of 10 MB is held once for each request under way.
		MaxResponseHeaderBytes: maxHeader,
		// The default of 2 makes every further reader dial anew.
		MaxIdleConnsPerHost: 2 * o.MaxRequests,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		ForceAttemptHTTP2:   true,
		// A dead HTTP/2 connection is otherwise noticed only when the kernel
		// gives it up, and new requests go on being sent on it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: o.StallTimeout / 2, PingTimeout: o.StallTimeout / 2},
	}, nil
}

// maxHeader is how long the head of an answer may be. Signed URLs are the
// longest that is in one, and have some kilobytes.
const maxHeader = 256 << 10

// A wire says how connections are made on behalf of a site: its own, and
// those to its token server and its storage, which trust the same
// authorities, as with docker, podman and containerd. Client certificates are
// shown to its own host only. The zero wire says nothing.
type wire struct {
	authorities []string // files to trust besides the system's
	pairs       [][2]string
	skipVerify  bool
	dialTimeout time.Duration // 0: as Options say
	proxy       *url.URL      // nil: as Options say

	home string // the site's host
	key  string // sites with the same key share connections
}

// tls tells whether the wire says something of TLS.
func (w *wire) tls() bool { return len(w.authorities)+len(w.pairs) > 0 || w.skipVerify }

// at returns the wire of a site whose host is home, completed.
func (w wire) at(o *Options, home string) *wire {
	if w.tls() || w.dialTimeout > 0 || w.proxy != nil || certDir(o, home) != "" {
		w.key = fmt.Sprint(home, w.authorities, w.pairs, w.skipVerify, w.dialTimeout, w.proxy)
	}
	w.home = home
	return &w
}

// isLoopback tells whether host, with or without a port, is this machine.
func isLoopback(host string) bool {
	name := hostname(host)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// hostname returns host without port, brackets and zone, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host, _, _ = strings.Cut(strings.Trim(host, "[]"), "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
