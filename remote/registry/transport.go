package registry

import (
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// newTransport returns the connection pool for one host, "name" or
// "name:port", on behalf of a site with the wire w, by a way.
func newTransport(o *Options, host string, w *wire, by way) (*transport, error) {
	conf, passed, err := o.CertDirs.TLS(host, &w.Wire, w.home)
	if err != nil {
		return nil, err
	}
	t := new(transport)
	for _, err := range passed {
		text := scrub.Text(err.Error())
		o.warnings.tell(text + ": passed over")
		t.passed += "; " + text
	}
	if o.TLSVerify != nil {
		conf.InsecureSkipVerify = !*o.TLSVerify
	}
	dialTimeout := o.DialTimeout
	if w.DialTimeout > 0 {
		dialTimeout = w.DialTimeout
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	var proxy func(*http.Request) (*url.URL, error)
	if by.proxy != nil {
		proxy = http.ProxyURL(by.proxy)
	} else if !o.AllowPrivate {
		dialer.Control = (&gate{host: host, limit: by.limit, home: by.home}).control
	}
	answerTimeout := o.HeaderTimeout
	if by.write { // it may have to hash what it got, or to copy it elsewhere
		answerTimeout = max(o.ReadTimeout, 0)
	}
	certificate := &clientCertificate{certificates: conf.Certificates}
	conf.GetClientCertificate = certificate.choose
	t.Transport = &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: checkConnect,
		DialContext:            certificate.dialing(dialer.DialContext),
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  answerTimeout,
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
	}
	return t, nil
}

// A transport is a connection pool.
type transport struct {
	*http.Transport
	passed string // what is wrong with certificates for it, each after "; "
}

// explain says what went wrong with a request to a host, if that is known better
// than by err: with the proxy, or with TLS.
func (t *transport) explain(host string, proxy *url.URL, err error) error {
	if f := proxyFault(proxy, err); f != nil {
		return f
	}
	if f := tlsFault(host, len(t.TLSClientConfig.Certificates) > 0, err); f != nil {
		f.text += t.passed
		return f
	}
	return err
}

// maxHeader is how long the head of an answer may be. Signed URLs are the
// longest that is in one, and have some kilobytes.
const maxHeader = 256 << 10

// A wire is a site's, for the client's transports.
type wire struct {
	hosts.Wire
	home string // the site's host
	key  string // sites with the same key share connections
}

// newWire returns the wire of a site.
func newWire(o *Options, s *hosts.Site) *wire {
	w := &wire{Wire: s.Wire, home: s.Host}
	if w.SaysTLS() || w.DialTimeout > 0 || w.Proxy != nil || o.CertDirs.Has(s.Host) {
		w.key = w.Key(s.Host)
	}
	return w
}
