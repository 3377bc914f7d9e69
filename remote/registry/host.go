package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// maxHosts is how many hosts connections are kept to.
const maxHosts = 64

// A hostPool sends each request the way of its host. It is safe for concurrent
// use.
type hostPool struct {
	opts *Options
	// makeRoom ends the oldest answer of a host that nobody reads.
	makeRoom func(host string)

	// closed says that no connection is to stay idle.
	closed atomic.Bool

	mu     sync.Mutex
	byName map[string]*host
	homes  map[string]*home // by the host that a user named

	proxied map[string]bool // what logProxy has said
}

func newHostPool(o *Options, makeRoom func(host string)) *hostPool {
	return &hostPool{opts: o, makeRoom: makeRoom, byName: make(map[string]*host), homes: make(map[string]*home), proxied: make(map[string]bool)}
}

// roundTrip sends req within the limits of its host, by the wire w, to an
// address of no nearer a reach than limit. It returns the reach of the server
// that answered.
func (s *hostPool) roundTrip(req *http.Request, w *wire, limit address.Reach) (*http.Response, address.Reach, error) {
	name := strings.ToLower(req.URL.Host)
	by, err := s.way(req, w, limit)
	if err != nil {
		closeBody(req)
		return nil, 0, err
	}
	routeOf(req.Context()).proxy = by.proxy
	h := s.host(name)
	transport, err := h.transport(w, by)
	if err != nil {
		closeBody(req)
		return nil, 0, &fault{class: remote.ErrUnavailable, text: "certificates for " + h.name + ": " + scrub.Text(err.Error())}
	}
	req, peer := by.watch(req)
	resp, err := h.send(req, transport, by.proxy)
	return resp, *peer, err
}

func (s *hostPool) host(name string) *host {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.byName[name]; h != nil {
		return h
	}
	// A registry can redirect to ever new names.
	for old, h := range s.byName {
		if len(s.byName) < maxHosts {
			break
		}
		if len(h.slots) == 0 {
			h.closeIdle()
			delete(s.byName, old)
		}
	}
	h := &host{name: name, opts: s.opts, makeRoom: func() { s.makeRoom(name) }, closed: &s.closed, transports: make(map[pool]*transport),
		slots: make(chan struct{}, s.opts.MaxRequests), health: newHealth(s.opts, name)}
	s.byName[name] = h
	return h
}

// close ends the connections that are idle, and each of the others once its request
// is over.
func (s *hostPool) close() {
	s.closed.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.byName {
		h.closeIdle()
	}
}

// A host is one server with its connection pool. All requests to it go
// through here, so that together they keep to its limits. It is safe for
// concurrent use.
type host struct {
	name     string
	opts     *Options
	makeRoom func()        // that of the hostPool
	closed   *atomic.Bool  // that of the hostPool
	slots    chan struct{} // holds one element for every request under way
	health   *health

	mu         sync.Mutex
	transports map[pool]*transport // mostly one
	opens      time.Time           // no request is sent before
	why        string              // what the answer was that said so
}

// transport returns the connection pool for a wire and a way. Connections that
// were allowed on one way are not used on another.
func (h *host) transport(w *wire, by way) (*transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := by.pool(w)
	t := h.transports[key]
	if t == nil {
		var err error
		if t, err = newTransport(h.opts, h.name, w, by); err != nil {
			return nil, err
		}
		h.transports[key] = t
	}
	return t, nil
}

func (h *host) closeIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.transports {
		t.CloseIdleConnections()
	}
}

// send sends one request when the host wants it, by way of a proxy unless that
// is nil. The request counts as under way until the body of its answer is closed.
func (h *host) send(req *http.Request, transport *transport, proxy *url.URL) (*http.Response, error) {
	attemptOf(req.Context()).host.Store(h)
	if err := h.enter(req.Context()); err != nil {
		closeBody(req)
		return nil, err
	}
	if h.closed.Load() {
		req.Close = true // not to be kept for another request
	}
	begun, probe := time.Now(), req.Method == http.MethodHead && attemptOf(req.Context()).probe
	resp, err := transport.RoundTrip(req)
	if err != nil {
		err = transport.explain(h.name, proxy, err)
		var refused *refusal
		if !errors.As(err, &refused) && !probe { // else it was not asked, or is asked once more
			h.health.unanswered(req, begun, err)
		}
		h.leave()
		return nil, err
	}
	h.opts.Tracef("%s", traceLine(resp, time.Since(begun)))
	body := resp.Body
	if resp.StatusCode < 400 || !probe {
		said := ""
		if resp.StatusCode >= 400 {
			said = hear(resp)
			attemptOf(req.Context()).said = said
		}
		h.obey(resp, said)
		body = h.health.watch(resp, said, begun)
	}
	resp.Body = &slotBody{ReadCloser: body, leave: sync.OnceFunc(h.leave)}
	return resp, nil
}

// traceLine tells of a request and the head of its answer. A query is left
// out: it can hold a signature.
func traceLine(resp *http.Response, took time.Duration) string {
	req := resp.Request
	line := fmt.Sprintf("%s %s://%s%s", req.Method, req.URL.Scheme, req.URL.Host, scrub.Text(req.URL.Path))
	if r := req.Header.Get("Range"); r != "" {
		line += " " + r
	}
	return fmt.Sprintf("%s: %d in %.3f s", line, resp.StatusCode, took.Seconds())
}

// enter waits until a request may be sent, and takes a slot for it.
func (h *host) enter(ctx context.Context) error {
	for {
		if err := h.waitOpen(ctx); err != nil {
			return err
		}
		if err := h.takeSlot(ctx); err != nil {
			return err
		}
		h.opts.active.Add(1)
		if wait, _ := h.closedFor(); wait <= 0 {
			return nil
		}
		h.leave()
	}
}

// slotPatience is how long a request waits for a slot until an answer that was put
// aside for another read gives up its own: most are taken up again at once.
const slotPatience = 100 * time.Millisecond

// takeSlot waits for a slot.
func (h *host) takeSlot(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	late := time.NewTicker(slotPatience)
	defer late.Stop()
	for {
		select {
		case h.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			h.makeRoom()
		}
	}
}

// leave gives back the slot that enter took.
func (h *host) leave() {
	h.opts.active.Add(-1)
	<-h.slots
	if h.closed.Load() {
		// A request that was sent since has let connections become idle again.
		h.closeIdle()
	}
}

// waitOpen waits until the host wants requests again; not if the attempt
// would be given up before that.
func (h *host) waitOpen(ctx context.Context) error {
	wait, why := h.closedFor()
	if wait <= 0 {
		return nil
	}
	if deadline := attemptOf(ctx).deadline(); !deadline.IsZero() && time.Now().Add(wait).After(deadline) {
		return &fault{class: remote.ErrUnavailable, held: true,
			text: fmt.Sprintf("%s wants no requests for another %s: it answers %s", h.name, wait.Round(time.Second), why)}
	}
	// Without chance all readers that wait would come back in the same instant.
	return sleep(ctx, wait+rand.N(h.opts.MinBackoff))
}

// closedFor returns how long no request is to be sent, and what the answer was that
// said so.
func (h *host) closedFor() (time.Duration, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Until(h.opens), h.why
}

// obey closes the host for as long as resp asks for. If a read does not wait so
// long, obey closes it for half of the time that a read waits: a mistaken answer
// must not lock a mount for days, and the next read must find out. said is what the
// server says of it.
func (h *host) obey(resp *http.Response, said string) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return
	}
	after, ok := retryAfter(resp.Header, time.Now())
	if !ok || after <= 0 {
		return
	}
	h.opts.Logf("%s answers %d and wants no requests for %s", h.name, resp.StatusCode, after.Round(time.Millisecond))
	most := h.opts.ReadTimeout
	if most < 0 {
		most = time.Minute
	}
	if after > most {
		after = most / 2
	}
	until := time.Now().Add(after)
	h.mu.Lock()
	defer h.mu.Unlock()
	if until.After(h.opens) {
		h.opens, h.why = until, statusFault(resp.StatusCode, said).text
	}
}

// retryAfter reads Retry-After, in seconds or as a date, which is compared
// with the server's own clock. RFC 9110, 10.2.3.
func retryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		const most = 365 * 24 * 3600
		return time.Duration(min(seconds, most)) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return at.Sub(now), true
}

// A slotBody is a body whose Close ends the request for the host's count.
type slotBody struct {
	io.ReadCloser
	leave func()
}

func (b *slotBody) Close() error {
	defer b.leave()
	return b.ReadCloser.Close()
}

// closeBody closes the body of a request that is not sent, as a RoundTripper
// must.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// sleep waits for d. It returns why ctx ended if that comes first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
