package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// proxyName returns a proxy for messages: without its password.
func proxyName(u *url.URL) string { return scrub.Text(u.Scheme + "://" + u.Host) }

// errProxy: the environment names a proxy in a way that is not understood. What
// is wrong is not quoted: there can be a password in it.
var errProxy = &fault{class: hosts.ErrConfiguration, text: "HTTPS_PROXY or HTTP_PROXY of the environment is not the URL of a proxy"}

// environmentProxy returns the proxy that the environment names for a request.
// net/http puts http:// before what is no URL, also if that begins so already: then
// it would look up a host named http.
func environmentProxy(req *http.Request) (*url.URL, error) {
	proxy, err := http.ProxyFromEnvironment(req)
	if err == nil && proxy != nil && (proxy.Hostname() == "" || strings.HasPrefix(proxy.Path, "//")) {
		return nil, errProxy
	}
	return proxy, err
}

// logProxy says once of each server by which proxy it is asked.
func (s *hostPool) logProxy(host string, proxy *url.URL) {
	key := host + " " + proxyName(proxy)
	s.mu.Lock()
	known := s.proxied[key]
	if len(s.proxied) >= maxHosts {
		clear(s.proxied) // a registry can redirect to ever new names
	}
	s.proxied[key] = true
	s.mu.Unlock()
	if !known {
		s.opts.Logf("%s is asked by way of the proxy %s", scrub.Text(host), proxyName(proxy))
	}
}

// proxyFault says that the proxy is at fault for an error of net/http, or nil if
// it is not.
func proxyFault(proxy *url.URL, err error) *fault {
	var op *net.OpError
	if proxy == nil || !errors.As(err, &op) || op.Op != "proxyconnect" {
		return nil
	}
	if f := tlsFault("the proxy "+proxyName(proxy), false, err); f != nil {
		f.class, f.host = remote.ErrUnavailable, ""
		return f
	}
	return &fault{verdict: outage, class: remote.ErrUnavailable, text: fmt.Sprintf("the proxy %s cannot be reached: %s", proxyName(proxy), scrub.Text(op.Err.Error()))}
}

// checkConnect judges the answer of a proxy that was asked for a connection to a
// server. A login that it wants is the proxy's own.
func checkConnect(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	f := statusFault(resp.StatusCode, words(resp.Header.Get("Content-Type"), hearConnection(ctx, resp.Body), secretsOf(req)))
	f.text = fmt.Sprintf("the proxy %s does not connect to %s: %s", proxyName(proxy), req.Host, f.text)
	if f.class = remote.ErrUnavailable; f.verdict != busy {
		f.verdict = final
	}
	return f
}

// hearConnection reads what comes of a body within a moment. The caller closes
// the connection afterwards, which ends reading.
func hearConnection(ctx context.Context, body io.Reader) []byte {
	heard := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(body, maxHeard)) // what came before an error says as much
		heard <- b
	}()
	timer := time.NewTimer(heardTime)
	defer timer.Stop()
	select {
	case b := <-heard:
		return b
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}
