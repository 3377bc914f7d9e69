package registry

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

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
	broke   bool   // the server was asked, and the connection brought no answer
	head    bool   // the answer is one to HEAD, or may be to HEAD alone
	led     bool   // the answer leads to where nothing is asked
	ranged  bool   // the answer may be to a range alone
	unmet   bool   // nothing was shown, as the server wants what there is not, or does not say what
	refuser string // the server that refused the range
	// who names the server whose fault it is, unless that is the registry that
	// the user named, or the text names it.
	who  string
	text string
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

func (f *fault) Error() string { return f.class.Error() + ": " + f.reason() }

// reason is the text with whose fault it is.
func (f *fault) reason() string {
	if f.who == "" {
		return f.text
	}
	return f.who + ": " + f.text
}

// by returns the fault as that of a server, unless it is known whose it is.
func (f *fault) by(who string) *fault {
	if f.who != "" || who == "" {
		return f
	}
	named := *f
	named.who = who
	return &named
}

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
		return statusFault(response.StatusCode, errorWords(response.Errors))
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

// statusFault judges an answer by its status. said is what it says of itself.
func statusFault(status int, said string) *fault {
	f := &fault{class: remote.ErrUnavailable, status: status, text: strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))}
	if said = besides(said, f.text, http.StatusText(status)); said != "" {
		f.text += ": " + said
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		f.class = remote.ErrUnauthorized
	case status == http.StatusNotFound, status == http.StatusGone:
		f.class = remote.ErrNotFound
	case status == http.StatusRequestedRangeNotSatisfiable, status == http.StatusProxyAuthRequired:
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500 && status != http.StatusNotImplemented:
		f.verdict = busy
	default:
		// Storage behind registries answers a range with 400 at times, and
		// serves it when asked again.
		f.verdict = odd
	}
	return f
}

// besides returns of a text what stands there besides others, which it may begin
// with, or be as the title of a web page.
func besides(said string, others ...string) string {
	for _, other := range others {
		if n := len(other); n > 0 && len(said) >= n && strings.EqualFold(said[:n], other) {
			if rest := strings.TrimLeft(said[n:], " -.:;,"); rest == "" || len(rest) < len(said)-n {
				said = rest
			}
		}
		if strings.EqualFold(said, `a web page, "`+other+`"`) {
			said = ""
		}
	}
	return said
}

// errorWords is what an answer says that oras-go has read.
func errorWords(errs errcode.Errors) string {
	var all []string
	for _, e := range errs {
		all = append(all, cmp.Or(e.Message, e.Code))
	}
	return scrub.Text(strings.Join(all, "; "))
}

// refusal judges an answer that is not a success and came from a location, and
// has what the server says of it.
func (e *endpoint) refusal(resp *http.Response, at *location) *fault {
	f := statusFault(resp.StatusCode, wordsOf(resp))
	switch proxy := routeOf(resp.Request.Context()).proxy; {
	case proxy == nil:
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return f.by("the proxy " + proxyName(proxy))
	case resp.Request.URL.Scheme == "http" && proxy.Scheme != "socks5":
		// Whose answer it is nobody can tell.
		f.text += ", by way of the proxy " + proxyName(proxy)
	}
	return f.by(e.speaker(at))
}

// ofStorage judges a refusal by storage. That knows only the signature of a URL, which
// a fresh one may have right; whether the reader may read is for the registry to say.
func (f *fault) ofStorage(at *location) *fault {
	if at.home || !denied(f.status) {
		return f
	}
	judged := *f
	judged.verdict = odd
	if judged.class == remote.ErrUnauthorized {
		judged.class = remote.ErrUnavailable
	}
	return &judged
}

// speaker names the server at a location, which is the endpoint's own without
// one: "" for the registry that the user named.
func (e *endpoint) speaker(at *location) string {
	switch {
	case at != nil && !at.home:
		return "storage " + scrub.Text(at.url.Host)
	case e.mirror:
		return "mirror " + e.Host
	case !e.stated:
		return e.Host
	}
	return ""
}

// blame says of an error of a request to a location whose fault it is. said is
// what the registry said when it wanted a login.
func (e *endpoint) blame(err error, at *location, said string) error {
	var known *fault
	if errors.As(err, &known) {
		if said != "" && known.unmet {
			wants := *known
			wants.text += ": " + said
			return &wants
		}
		return err
	}
	f := classify(err)
	f.broke = f.verdict == busy
	return f.by(e.speaker(at))
}
