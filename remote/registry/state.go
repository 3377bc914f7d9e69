package registry

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// downAfter is how many requests in a row must fail before a server counts as
// down, unless Options.Tries is less: after a broken connection or two a reader
// still gets an answer.
const downAfter = 3

// A HostState tells whether a server answers: a registry, a mirror, or one
// that a registry sends its readers to.
type HostState struct {
	// Host is "name" or "name:port".
	Host string
	// Down is set when several requests in a row got no answer, 429 or an error
	// of the server's own, or broke off, or when a read failed for such a reason.
	// One good answer ends it. No request is sent to find it out: without
	// requests the state stays as it is.
	Down bool
	// Since is when the first of these requests failed, or the first one of
	// the others was answered.
	Since time.Time
	// Reason is why the last request failed; "" if the server is not down.
	Reason string
}

// Health returns the states of the servers that were asked something, by their
// names. It asks no one.
func (c *Client) Health() []HostState {
	c.hosts.mu.Lock()
	defer c.hosts.mu.Unlock()
	var states []HostState
	for _, h := range c.hosts.byName {
		if s := h.health.state(); !s.Since.IsZero() {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b HostState) int { return cmp.Compare(a.Host, b.Host) })
	return states
}

// NoAnswer reports whether a read or request failed because its server did not
// answer, answered with an error of its own, or wanted to be left alone.
// HostState and Options.StateChanged tell of the same failures; all others are
// about the thing that was asked for.
func NoAnswer(err error) bool {
	var f *fault
	return errors.As(err, &f) && (f.verdict == busy || f.verdict == outage || f.held)
}

// A health finds out whether a server is down. It is safe for concurrent use.
type health struct {
	host    string
	most    int // failures in a row before it is down
	changed func(host string, up bool, reason string)

	// mu is held while a change is told, so that changes are told in their
	// order.
	mu       sync.Mutex
	login    bool // a request for a token is among the failures
	failures int
	first    time.Time // when the first of failures was noted
	last     time.Time // and the last
	reason   string    // of the last
	now      HostState
}

func newHealth(o *Options, host string) *health {
	return &health{host: host, most: min(downAfter, o.Tries), changed: o.StateChanged}
}

func (h *health) state() HostState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// failed notes that a request that was sent at a time failed. Requests that
// were under way together fail for one reason, so they count as one.
func (h *health) failed(ctx context.Context, sent time.Time, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.login = h.login || ctx.Value(tokenRequestKey{}) != nil
	if h.now.Down {
		h.now.Reason = reason
	}
	if sent.Before(h.last) {
		return
	}
	h.last, h.reason = time.Now(), reason
	if h.failures++; h.failures == 1 {
		h.first = h.last
	}
	if h.failures >= h.most {
		h.goDown()
	}
}

// gaveUp notes that a read failed for want of an answer, after all its tries:
// that is told, unless others were answered, and the next ones that fail so
// are not.
func (h *health) gaveUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures > 0 {
		h.goDown()
	}
}

// goDown is for a server that is down. The caller holds mu.
func (h *health) goDown() {
	if h.now.Down {
		return
	}
	h.now = HostState{Host: h.host, Down: true, Since: h.first, Reason: h.reason}
	h.changed(h.host, false, h.reason)
}

// answered notes that a request got an answer and all of it that was wanted.
// A demand for a token says nothing of a server that does not give one.
func (h *health) answered(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.login && status == http.StatusUnauthorized {
		return
	}
	h.failures, h.login = 0, false
	if !h.now.Down && !h.now.Since.IsZero() {
		return
	}
	was := h.now.Down
	h.now = HostState{Host: h.host, Since: time.Now()}
	if was {
		h.changed(h.host, true, "")
	}
}

// token notes how a request for a token ended that was begun at a time.
func (h *health) token(ctx context.Context, begun time.Time, err error) {
	if err == nil {
		h.answered(http.StatusOK)
		return
	}
	switch f := classify(err); {
	case f.held: // nobody was asked
	case NoAnswer(f):
		h.failed(ctx, begun, f.reason())
	default:
		h.answered(http.StatusOK)
	}
}

// unanswered notes a request that err ended before the head of an answer.
func (h *health) unanswered(req *http.Request, sent time.Time, err error) {
	if !givenUp(req.Context()) {
		h.failed(req.Context(), sent, classify(err).reason())
	}
}

// givenUp tells whether a request was ended by the one that wanted it.
func givenUp(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause != nil && !errors.Is(cause, errStalled)
}

// watch returns the body of an answer, which decides what the answer was
// worth: a server that says 200 and then nothing is as good as none. said is what
// one says that is no success.
func (h *health) watch(resp *http.Response, said string, sent time.Time) io.ReadCloser {
	if s := resp.StatusCode; s == http.StatusTooManyRequests || s >= 500 && s != http.StatusNotImplemented {
		h.failed(resp.Request.Context(), sent, "it answers "+statusFault(s, said).text)
		return resp.Body
	}
	return &healthBody{ReadCloser: resp.Body, health: h, ctx: resp.Request.Context(), sent: sent, status: resp.StatusCode}
}

// A healthBody notes whether reading a body to its end, or as far as somebody
// wants it, works.
type healthBody struct {
	io.ReadCloser
	health *health
	ctx    context.Context // of the request
	sent   time.Time
	status int
	done   atomic.Bool
}

func (b *healthBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !b.done.Swap(true) && !givenUp(b.ctx) {
		reason := classify(err).text
		switch {
		case errors.Is(context.Cause(b.ctx), errStalled):
			reason = context.Cause(b.ctx).Error()
		case errors.Is(err, io.ErrUnexpectedEOF):
			reason = "its answers end too early"
		}
		b.health.failed(b.ctx, b.sent, reason)
	}
	return n, err
}

func (b *healthBody) Close() error {
	// A token server's answer is worth something if there is a token in it.
	if !b.done.Swap(true) && !givenUp(b.ctx) && b.ctx.Value(tokenRequestKey{}) == nil {
		b.health.answered(b.status)
	}
	return b.ReadCloser.Close()
}
