package network

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A kind is the kind of thing that a request asks for.
type kind string

const (
	blobs     kind = "blob"
	manifests kind = "manifest"
	tokens    kind = "token" // asking for one, or being told to
	others    kind = "other"
)

func kindOf(path string) kind {
	switch {
	case path == tokenPath:
		return tokens
	case strings.Contains(path, "/blobs/"):
		return blobs
	case strings.Contains(path, "/manifests/"):
		return manifests
	}
	return others
}

// A count is how many requests came, and how many bytes of bodies went.
type count struct {
	Requests, Bytes int64
}

// counts are by kind.
type counts map[kind]count

// all adds up some kinds, or every one.
func (c counts) all(kinds ...kind) count {
	var sum count
	for k, n := range c {
		if len(kinds) == 0 || slices.Contains(kinds, k) {
			sum.Requests += n.Requests
			sum.Bytes += n.Bytes
		}
	}
	return sum
}

// An exchange is a request and its answer.
type exchange struct {
	Kind       kind
	Method     string
	Path       string
	Range      string
	Status     int
	Begun, End time.Duration // since the counters were reset; 0 while it runs
	Bytes      int64         // of the body, as far as they were sent
}

// A proxy stands before a registry at the end of a line. It wants a token, as
// the big registries do, which it gives to every client, and counts all that goes
// through. Contents it does not change.
type proxy struct {
	line
	host   string // where it listens
	server *http.Server
	to     *httputil.ReverseProxy
	ended  chan struct{}

	mu      sync.Mutex
	since   time.Time
	counts  counts
	trace   []*exchange
	running int
	idle    chan struct{} // closed when running gets 0
}

const (
	tokenPath = "/bench/token"
	theToken  = "bench"
)

// pieceSize is how much goes on the line at a time: small enough for several
// answers to take turns.
const pieceSize = 16 << 10

// newProxy starts a proxy before the registry at a host, on a free port of
// loopback. Its line has neither delay nor bound.
func newProxy(registry string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{host: l.Addr().String(), ended: make(chan struct{})}
	p.forget()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	p.to = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: registry})
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Authorization") // of the proxy's own token
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // clients that went away
	}
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(c net.Conn, s http.ConnState) {
		// Bytes in the socket's buffer are counted and maybe never sent.
		if tcp, ok := c.(*net.TCPConn); ok && s == http.StateNew {
			_ = tcp.SetWriteBuffer(128 << 10)
		}
	}}
	go func() {
		_ = p.server.Serve(l) // returns when it is closed
		transport.CloseIdleConnections()
		close(p.ended)
	}()
	return p, nil
}

// close ends all connections.
func (p *proxy) close() error {
	err := p.server.Close()
	<-p.ended
	return err
}

// forget begins to count anew.
func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.counts, p.trace = time.Now(), counts{}, nil
}

// seen returns the counters as they are now.
func (p *proxy) seen() counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// exchanges returns the requests since forget, in their order.
func (p *proxy) exchanges() []exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]exchange, len(p.trace))
	for i, e := range p.trace {
		all[i] = *e
	}
	return all
}

// write writes the requests since forget to a trace, a line each.
func (p *proxy) write(w io.Writer, title string) {
	fmt.Fprintf(w, "# %s\n", title)
	for _, e := range p.exchanges() {
		fmt.Fprintf(w, "%.4f\t%.4f\t%s\t%d\t%s\t%s\t%s\t%d\n", e.Begun.Seconds(), e.End.Seconds(), e.Kind, e.Status, e.Method, e.Path, e.Range, e.Bytes)
	}
}

// settled waits until nothing is being answered, and returns the counters. A
// client can have all of an answer before it is counted.
func (p *proxy) settled(ctx context.Context) (counts, error) {
	for {
		p.mu.Lock()
		if p.running == 0 {
			defer p.mu.Unlock()
			return maps.Clone(p.counts), nil
		}
		idle := p.idle
		p.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin counts a request.
func (p *proxy) begin(r *http.Request, k kind) *exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running++; p.running == 1 {
		p.idle = make(chan struct{})
	}
	e := &exchange{Kind: k, Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"), Begun: time.Since(p.since)}
	c := p.counts[k]
	c.Requests++
	p.counts[k] = c
	p.trace = append(p.trace, e)
	return e
}

// sent counts bytes of an answer.
func (p *proxy) sent(e *exchange, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Bytes += int64(n)
	c := p.counts[e.Kind]
	c.Bytes += int64(n)
	p.counts[e.Kind] = c
}

// status notes the status that an answer begins with.
func (p *proxy) status(e *exchange, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Status == 0 {
		e.Status = status
	}
}

func (p *proxy) end(e *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.End = time.Since(p.since)
	if p.running--; p.running == 0 {
		close(p.idle)
	}
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowed := r.Header.Get("Authorization") == "Bearer "+theToken
	k := kindOf(r.URL.Path)
	if !allowed {
		k = tokens
	}
	e := p.begin(r, k)
	defer p.end(e)
	if p.roundTrip(r.Context()) != nil {
		return
	}
	out := &answer{ResponseWriter: w, ctx: r.Context(), p: p, e: e}
	switch {
	case r.URL.Path == tokenPath:
		out.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(out, `{"token":%q,"expires_in":3600}`, theToken)
	case !allowed:
		out.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=%q", "http://"+p.host+tokenPath, p.host))
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(out, `{"errors":[{"code":"UNAUTHORIZED","message":"a token is needed"}]}`)
	default:
		p.to.ServeHTTP(out, r)
	}
}

// An answer goes to the client over the line.
type answer struct {
	http.ResponseWriter
	ctx context.Context
	p   *proxy
	e   *exchange
}

// Unwrap lets http.ResponseController flush.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	a.p.status(a.e, status)
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.p.status(a.e, http.StatusOK)
	total := 0
	for len(b) > 0 {
		piece := b
		if a.p.limited() {
			piece = b[:min(len(b), pieceSize)]
		}
		if err := a.p.pass(a.ctx, len(piece)); err != nil {
			return total, err
		}
		n, err := a.ResponseWriter.Write(piece)
		a.p.sent(a.e, n)
		total += n
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}
