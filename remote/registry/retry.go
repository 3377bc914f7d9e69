package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// A verdict says whether asking again can mend a fault.
type verdict int

const (
	final  verdict = iota // it cannot
	busy                  // the server failed to answer, or in the middle of it
	odd                   // the server gave an answer that is of no use
	outage                // there was no server
)

// ErrTLS: the registry does not speak TLS, or has no certificate that is
// trusted. It is remote.ErrUnavailable as well.
var ErrTLS = fmt.Errorf("%w: no secure connection", remote.ErrUnavailable)

// How often faults of these kinds are met in a row before they are final.
const (
	oddTries    = 3
	outageTries = 3 // of a request for metadata; readers of blobs outlast it
)

// A fault is why a request failed. It wraps only its class: what net/http
// and oras-go say may hold a signed URL, and is kept as scrubbed text.
type fault struct {
	verdict verdict
	class   error // an error value of this package or of remote
	status  int   // of the answer, 0 if there was none
	held    bool  // nobody was asked, because the server wants no requests
	text    string
}

func (f *fault) Error() string { return f.class.Error() + ": " + f.text }

func (f *fault) Unwrap() error { return f.class }

// undone tells whether a request surely did nothing: it reached nobody, or was
// refused because there are too many.
func (f *fault) undone() bool {
	return f.verdict == outage || f.held || f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable
}

func oddf(format string, args ...any) *fault {
	return &fault{verdict: odd, class: remote.ErrUnavailable, text: fmt.Sprintf(format, args...)}
}

// classify turns any error of a request into a fault.
func classify(err error) *fault {
	var (
		known    *fault
		response *errcode.ErrorResponse
		dial     *net.OpError
		name     *net.DNSError
		cert     *tls.CertificateVerificationError
		scheme   tls.RecordHeaderError
	)
	f := &fault{verdict: busy, class: remote.ErrUnavailable, text: scrub.Text(withoutURL(err).Error())}
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &response):
		return statusFault(response.StatusCode, response.Errors)
	case errors.Is(err, errdef.ErrNotFound):
		return &fault{class: remote.ErrNotFound, status: http.StatusNotFound, text: "the registry has no such manifest"}
	case errors.Is(err, errOnce):
		return &fault{class: remote.ErrUnavailable, text: "the registry wants it once more, and " + errOnce.Error()}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &fault{class: remote.ErrUnauthorized, text: "the registry wants a login, and there is no credential for it"}
	case errors.As(err, &cert), errors.As(err, &scheme), errors.Is(err, http.ErrSchemeMismatch):
		f.verdict, f.class = final, ErrTLS
	case errors.As(err, &name), errors.As(err, &dial) && dial.Op == "dial":
		f.verdict = outage
	}
	return f
}

// withoutURL leaves out what net/http puts before an error: who asked knows
// what it was.
func withoutURL(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		return asked.Err
	}
	return err
}

// statusFault judges an answer by its status.
func statusFault(status int, errs errcode.Errors) *fault {
	f := &fault{class: remote.ErrUnavailable, status: status, text: fmt.Sprintf("%d %s", status, http.StatusText(status))}
	for _, e := range errs {
		f.text += ": " + cmp.Or(e.Message, e.Code) // the detail is for programs
	}
	f.text = scrub.Text(f.text)
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		f.class = remote.ErrUnauthorized
	case status == http.StatusNotFound, status == http.StatusGone:
		f.class = remote.ErrNotFound
	case status == http.StatusRequestedRangeNotSatisfiable:
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500 && status != http.StatusNotImplemented:
		f.verdict = busy
	default:
		// Storage behind registries answers a range with 400 at times, and
		// serves it when asked again.
		f.verdict = odd
	}
	return f
}

// responseFault judges an answer that is not a success, and reads what the
// registry says of it.
func responseFault(resp *http.Response) *fault {
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	// An answer of another form says nothing but its status.
	_ = json.NewDecoder(io.LimitReader(resp.Body, 8<<10)).Decode(&body)
	return statusFault(resp.StatusCode, body.Errors)
}

// A patience decides how long one read or request goes on trying. It belongs
// to one goroutine.
type patience struct {
	opts               *Options
	long               bool          // outlast outages
	time               time.Duration // without progress; negative: any
	tries              int           // of each kind
	parent             *patience     // of the reader, if this is that with a mirror
	since              time.Time
	pace               pace
	told               time.Time // when pace was told last
	got                int       // bytes since the last fault
	busy, odd, outages int
	backoff            time.Duration
}

func newPatience(o *Options, long bool) *patience {
	now := time.Now()
	return &patience{opts: o, long: long, time: o.ReadTimeout, tries: o.Tries, since: now, told: now,
		pace: pace{active: o.active}, backoff: o.MinBackoff}
}

// deadline is when to give up if nothing more comes; zero means never.
func (p *patience) deadline() time.Time {
	if p.time < 0 {
		return time.Time{}
	}
	return p.since.Add(p.time)
}

// progress notes that n bytes came for the reader. A server that breaks after
// every few of them does not count as mended.
func (p *patience) progress(n int) {
	const mended = 4 << 10
	p.alive(n)
	for ; p != nil && n > 0; p = p.parent {
		if p.got += n; p.got >= mended {
			p.busy, p.odd, p.outages, p.backoff = 0, 0, 0, p.opts.MinBackoff
		}
	}
}

// alive notes that the server sends n bytes, perhaps none for the reader yet.
// A trickle does not give the reader more time.
func (p *patience) alive(n int) {
	for now := time.Now(); p != nil; p = p.parent {
		if p.pace.add(n, now.Sub(p.told)) {
			p.since = now
		}
		p.told = now
	}
}

// next returns how long to wait after a fault before trying again.
func (p *patience) next(v verdict) (time.Duration, bool) {
	p.got = 0
	again := false
	switch v {
	case busy:
		p.busy++
		again = p.busy < p.tries
	case odd:
		p.odd++
		again = p.parent == nil && p.odd < min(oddTries, p.tries)
	case outage:
		p.outages++
		again = p.long || p.parent == nil && p.outages < min(outageTries, p.tries)
	}
	wait := p.backoff/2 + rand.N(p.backoff)
	p.backoff = min(2*p.backoff, p.opts.MaxBackoff)
	if end := p.deadline(); !end.IsZero() && time.Now().Add(wait).After(end) {
		again = false
	}
	return wait, again
}

// retry calls f until it succeeds or fails for good. The error is ctx.Err()
// or a *fault. what names the request in the log.
func (p *patience) retry(ctx context.Context, what string, f func(context.Context) error) error {
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a := &attempt{patience: p}
		err := f(context.WithValue(ctx, attemptKey{}, a))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		flt := classify(err)
		wait, again := p.next(flt.verdict)
		if !again {
			if h := a.host.Load(); h != nil && p.long && NoAnswer(flt) {
				h.health.gaveUp()
			}
			return flt
		}
		p.opts.Logf("%s: %v; asking again in %s", what, flt, wait.Round(time.Millisecond))
		if sleep(ctx, wait) != nil {
			return ctx.Err()
		}
	}
}

// An attempt is what belongs to one try of a request, wherever the request
// passes. It travels in the context, because oras-go stands in between. All
// but host belongs to one goroutine.
type attempt struct {
	patience *patience            // nil: endless
	token    string               // the token it was last sent with
	fresh    bool                 // the token was got during this attempt
	host     atomic.Pointer[host] // that was asked last
}

type attemptKey struct{}

func attemptOf(ctx context.Context) *attempt {
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		return a
	}
	return new(attempt)
}

// bodyTime is how long the body of an answer may go without progress; negative
// is for ever. A mirror has a share of the reader's time, but may be silent as
// long as any server.
func (a *attempt) bodyTime(o *Options) time.Duration {
	if a.patience == nil || o.ReadTimeout < 0 {
		return o.ReadTimeout
	}
	return min(o.ReadTimeout, max(a.patience.time, 2*o.StallTimeout))
}

// deadline is when the reader gives up; zero means never.
func (a *attempt) deadline() time.Time {
	if a.patience == nil {
		return time.Time{}
	}
	return a.patience.deadline()
}

// A turn lets one reader at a time do what all need done. It holds an element
// while one has it.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn, for as long as the attempt has time.
func (t turn) take(ctx context.Context) error {
	var late <-chan time.Time
	if deadline := attemptOf(ctx).deadline(); !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-late:
		return errStalled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) pass() { <-t }
