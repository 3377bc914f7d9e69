package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/errdef"
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

// A fault says why a request failed. It wraps only its class: errors of net/http
// and oras-go may hold a signed URL, and only their scrubbed text is kept.
type fault struct {
	verdict verdict
	class   error  // an error value of this package or of remote
	status  int    // of the answer, 0 if there was none
	held    bool   // nobody was asked, because the server wants no requests
	host    string // the server that is at fault, if it may be another one than the registry
	text    string
}

// HostOf returns the server that an error is about, "name:port" or "name", if it
// knows; it can be another one than the registry.
func HostOf(err error) string {
	var f *fault
	if errors.As(err, &f) {
		return f.host
	}
	return ""
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
	case errors.As(err, &name), errors.As(err, &dial) && dial.Op == "dial":
		f.verdict = outage
	}
	return f
}

// withoutURL leaves out the method and URL that net/http puts before an error:
// the caller adds the name of what was asked for.
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

// responseFault judges an answer that is not a success, and reads the
// registry's reason from its body.
func responseFault(resp *http.Response) *fault {
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	// An answer of another form says nothing but its status.
	_ = json.NewDecoder(io.LimitReader(resp.Body, 8<<10)).Decode(&body)
	return statusFault(resp.StatusCode, body.Errors)
}
