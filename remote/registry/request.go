package registry

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/imgfs/imgfs/remote/registry/internal/address"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// maxRedirects is how many redirects in a row are followed.
const maxRedirects = 5

const (
	// maxLocation is how long the URL of a redirect may be: one is kept for each
	// blob.
	maxLocation = 16 << 10
	// maxLocationLife bounds what a URL says of when it expires: times of far
	// away would overflow.
	maxLocationLife = 100 * 365 * 24 * time.Hour
)

// A location is an address that a request can be sent to.
type location struct {
	url     *url.URL
	home    bool          // it is the registry's, which gets the credential
	limit   address.Reach // the nearest address that the server may have
	named   bool          // the user named it: it may have any
	expires time.Time     // when not to use it any more; zero: never
}

// redirect returns where resp, an answer of l, sends us. The server that
// answered leads no nearer than limit.
func (l *location) redirect(resp *http.Response, limit address.Reach, o *Options) (*location, error) {
	if n := len(resp.Header.Get("Location")); n > maxLocation {
		return nil, oddf("%s answers with a redirect to a URL of %d bytes", l.url.Host, n)
	}
	next, err := l.url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || next.Host == "" {
		return nil, oddf("%s answers with a redirect to nowhere", l.url.Host)
	}
	next.User, next.Fragment = nil, ""
	if next.Scheme != "https" && (next.Scheme != "http" || l.url.Scheme == "https") {
		return nil, oddf("%s redirects from %s to %s", l.url.Host, l.url.Scheme, scrub.Text(next.Scheme))
	}
	now := time.Now()
	serverNow := now
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		serverNow = date
	}
	life := o.LocationLife
	if end, ok := expiry(next.Query()); ok {
		life = min(max(end.Sub(serverNow), -maxLocationLife), maxLocationLife)
	}
	expires := now.Add(life - o.LocationMargin)
	if !l.expires.IsZero() && l.expires.Before(expires) {
		expires = l.expires
	}
	return &location{url: next, home: l.home && sameOrigin(l.url, next), limit: limit, expires: expires}, nil
}

// expiry reads from the query of a signed URL when it expires, by the clock
// of who signed it: S3 and GCS; CloudFront and the older signatures of both;
// Azure.
func expiry(query url.Values) (time.Time, bool) {
	for _, prefix := range []string{"X-Amz-", "X-Goog-"} {
		signed, err := time.Parse("20060102T150405Z", query.Get(prefix+"Date"))
		seconds, err2 := strconv.ParseUint(query.Get(prefix+"Expires"), 10, 31)
		if err == nil && err2 == nil {
			return signed.Add(time.Duration(seconds) * time.Second), true
		}
	}
	if at, err := strconv.ParseInt(query.Get("Expires"), 10, 40); err == nil {
		return time.Unix(at, 0), true
	}
	at, err := time.Parse(time.RFC3339, query.Get("se"))
	return at, err == nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && address.Hostname(a.Host) == address.Hostname(b.Host) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// ask sends a request, following redirects, and returns the answer and where
// it came from. Its Body is a *liveBody: it ends if ctx does, and when it
// brings nothing for the time that Options allow.
func (e *endpoint) ask(ctx context.Context, method string, from *location, header http.Header) (*http.Response, *location, error) {
	ctx = auth.AppendRepositoryScope(ctx, registry.Reference{Registry: e.Host, Repository: e.Ref.Repository}, auth.ActionPull)
	live, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	wait := time.Duration(math.MaxInt64)
	if deadline := attemptOf(ctx).deadline(); !deadline.IsZero() {
		wait = time.Until(deadline)
	}
	o := e.client.opts
	body := &liveBody{stall: o.StallTimeout, most: attemptOf(ctx).bodyTime(o), pace: pace{active: o.active},
		cancel: cancel, unlink: unlink, cause: func() error { return context.Cause(live) }}
	body.watch = time.AfterFunc(wait, body.late)
	resp, at, err := e.follow(live, method, from, header)
	body.watch.Stop()
	if err != nil {
		err = body.explain(err)
		body.end()
		return nil, nil, err
	}
	body.body, resp.Body = resp.Body, body
	return resp, at, nil
}

// follow sends a request and follows redirects. The registry's credential
// goes to the registry alone, and not any more once a redirect has left it.
func (e *endpoint) follow(ctx context.Context, method string, at *location, header http.Header) (*http.Response, *location, error) {
	for hop := 0; ; hop++ {
		r := &route{limit: at.limit, named: at.named}
		resp, err := e.send(context.WithValue(ctx, routeKey{}, r), method, at, header)
		if err != nil {
			return nil, nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, at, nil
		}
		drain(resp.Body)
		if hop == maxRedirects {
			return nil, nil, oddf("%s redirects more than %d times", e.Host, maxRedirects)
		}
		if at, err = at.redirect(resp, min(r.limit, r.from), e.client.opts); err != nil {
			return nil, nil, err
		}
		at.named = e.named(at.url)
	}
}

// send sends one request to one place.
func (e *endpoint) send(ctx context.Context, method string, at *location, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	if !at.home {
		req.Header.Set("User-Agent", e.client.opts.UserAgent)
		return e.RoundTrip(req)
	}
	for name, values := range e.Header {
		req.Header[name] = values
	}
	resp, err := e.auth.Do(req)
	if err != nil || resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusForbidden {
		return resp, err
	}
	// ECR answers 403 and ECR Public 400 when a token has expired.
	if !e.tokens.forget(ctx) {
		return resp, nil
	}
	drain(resp.Body)
	return e.auth.Do(req)
}

// drain reads what little is left of a body, so that the connection can be
// used again, and closes it. It does not wait for what has no use.
func drain(body io.ReadCloser) {
	const most, wait = 8 << 10, 250 * time.Millisecond
	timer := time.AfterFunc(wait, func() { body.Close() })
	// What cannot be read is closed all the same.
	_, _ = io.CopyN(io.Discard, body, most)
	timer.Stop()
	body.Close()
}

// A liveBody is the body of an answer with a watch on its progress.
type liveBody struct {
	body   io.ReadCloser
	stall  time.Duration // without a byte
	most   time.Duration // without progress; negative: any
	pace   pace
	watch  *time.Timer
	slow   atomic.Bool // watch is for a trickle
	cancel context.CancelCauseFunc
	unlink func() bool // makes it independent of the context it was asked with
	cause  func() error
}

// Read gives the answer up when nothing comes, or a trickle. Only the time
// within it counts: its caller may have other things to do.
func (b *liveBody) Read(p []byte) (int, error) {
	wait, left := b.stall, b.most-b.pace.spent
	slow := b.most >= 0 && left < wait
	if slow {
		wait = max(left, 0)
	}
	b.slow.Store(slow && b.pace.got > 0)
	begun := time.Now()
	b.watch.Reset(wait)
	n, err := b.body.Read(p)
	b.watch.Stop()
	b.pace.add(n, time.Since(begun))
	if err != nil && err != io.EOF {
		err = b.explain(err)
	}
	return n, err
}

// late ends the request.
func (b *liveBody) late() {
	if b.slow.Load() {
		b.cancel(errSlow)
		return
	}
	b.cancel(errStalled)
}

// explain returns why the request was ended, if we ended it and err does not
// say more.
func (b *liveBody) explain(err error) error {
	var known *fault
	if errors.As(err, &known) {
		return err
	}
	if cause := b.cause(); cause != nil {
		return cause
	}
	return err
}

func (b *liveBody) Close() error {
	err := b.body.Close()
	b.end()
	return err
}

func (b *liveBody) end() {
	b.watch.Stop()
	b.unlink()
	b.cancel(context.Canceled)
}
